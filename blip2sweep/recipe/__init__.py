"""What a cell does to the model: the recipe of a config, its short form, its hash and its size."""

from blip2sweep.recipe.compose import resolve_recipe
from blip2sweep.recipe.recipe import PartRecipe, Recipe

__all__ = ["PartRecipe", "Recipe", "resolve_recipe"]
