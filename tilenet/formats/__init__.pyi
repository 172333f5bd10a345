from .contents import list_arrays as list_arrays
from .ingest_task import IngestTask as IngestTask
from .selection import Selection as Selection
from .selection import translated as translated
from .source import Source as Source
from .source import ZarrSource as ZarrSource
from .source import open_source as open_source
