"""What is known of a trained map, on one page that opens anywhere."""

from actionlearn.report.evidence import Evidence, gather
from actionlearn.report.whole import write_page

__all__ = ["Evidence", "gather", "write_page"]
