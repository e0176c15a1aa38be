"""Dressing people: a person, a cloth and trained weights make a picture.

inputs    from what a user names (a bundled name, DATASET:ID, a photo) to a Person and a Cloth
tryon     TryOnPipeline: weights to a callable, for batches of records or for people and clothes
compose   the net's small output set into the person's own sharp photo
"""

from drape.pipeline.inputs import Cloth, Person, find_cloth, find_person
from drape.pipeline.tryon import SETTINGS, Dressed, TryOnPipeline

__all__ = ["SETTINGS", "Cloth", "Dressed", "Person", "TryOnPipeline", "find_cloth", "find_person"]
