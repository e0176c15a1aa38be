"""Why a run is flat: facts about data, code, weights and records, and a verdict in words."""
