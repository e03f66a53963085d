"""What a cell does to the model: config -> `{module path: scheme}`, its short form, its hash, its size."""

from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.recipe.resolve import parse_target, resolve_recipe

__all__ = ["PartRecipe", "Recipe", "parse_target", "resolve_recipe"]
