from .ingest_task import IngestTask as IngestTask
from .source import Source as Source
from .source import ZarrSource as ZarrSource
from .source import open_source as open_source
