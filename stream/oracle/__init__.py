"""An independent check, from the topics alone, of what a deployment did.

`run_oracle` reads everything that was produced and everything that came of it, works out by its
own means what should have come of it, and compares.  It shares with the workers only the model's
arithmetic (`profiles.updater`, `profiles.head`) and the form of a release.
"""

from stream.oracle.report import OracleReport, print_report
from stream.oracle.run import run_oracle

__all__ = ["OracleReport", "print_report", "run_oracle"]
