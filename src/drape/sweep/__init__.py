"""Search over the settings of a run: many ordinary runs, compared by their stable validation."""
