"""`driftline import`: events from the formats in which other systems hand them out."""

from stream.importing.reading import FORMATS
from stream.importing.run import ImportOptions, ImportReport, import_file

__all__ = ["FORMATS", "ImportOptions", "ImportReport", "import_file"]
