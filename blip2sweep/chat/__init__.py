"""The in-context pipeline: a chat model answers from what the vision-language model says of a picture. No torch here.

messages.py has what the chat model is told, parse.py what is read from its replies, pipeline.py the order of both,
client.py the requests, replies.py their store.
"""
