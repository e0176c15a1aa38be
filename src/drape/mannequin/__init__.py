"""People and clothes made by code, with the exact truth about both: the mannequin world."""

from drape.mannequin.dataset import Recipe, write_dataset
from drape.mannequin.sample import MannequinSample, make_cloth, make_person, make_sample, render_person_in

__all__ = ["MannequinSample", "Recipe", "make_cloth", "make_person", "make_sample", "render_person_in", "write_dataset"]
