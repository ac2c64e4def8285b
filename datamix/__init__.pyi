# The only list of the public names: `__init__.py` reads the module of each from here, and imports it on first use.
from datamix import interop as interop
from datamix.builder.load import load as load
from datamix.builder.mix import mix as mix
from datamix.errors import ConfigError as ConfigError
from datamix.errors import DataError as DataError
from datamix.errors import DatamixError as DatamixError
from datamix.errors import InstallationError as InstallationError
from datamix.errors import PluginError as PluginError
from datamix.errors import RegistryError as RegistryError
from datamix.errors import ResourceError as ResourceError
from datamix.errors import SpecError as SpecError
from datamix.errors import StateError as StateError
from datamix.jobs.calling import run as run
from datamix.jobs.calling import sweep as sweep
from datamix.jobs.calling import train as train
from datamix.mixing.orders import order as order
from datamix.mixing.plan import Plan as Plan
from datamix.mixing.plan import Selection as Selection
from datamix.mixing.stops import stop as stop
from datamix.mixing.weightings import weighting as weighting
from datamix.operators.base import operator as operator
from datamix.pipeline.cursor import Cursor as Cursor
from datamix.pipeline.pipeline import Pipeline as Pipeline
from datamix.pipeline.policies import policy as policy
from datamix.report.plan_figure import plot as plot
from datamix.report.record_figure import preview as preview
from datamix.sources.arrays import MemoryArrays as MemoryArrays
from datamix.sources.base import source as source
from datamix.sources.prepared import prepare as prepare
from datamix.training.models import model as model

__version__: str
