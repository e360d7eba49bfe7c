"""Vectors that items show beside their text, made at the edge: of pictures, of a knowledge graph.

Workers and learner see only the vectors (`Item.vectors`, `model.vectors`); what makes them is
needed by nobody else.
"""

from stream.side_vectors.adding import VectorReport, add_graph, add_pictures

__all__ = ["VectorReport", "add_graph", "add_pictures"]
