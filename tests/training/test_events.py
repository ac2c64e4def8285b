"""Event files, read as TensorBoard reads them."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from datamix.training.events import EventFile

# TensorFlow checks both checksums of each record.
_READ = """
import json, sys
from tensorflow.core.util.event_pb2 import Event
from tensorflow.python.lib.io.tf_record import tf_record_iterator
events = map(Event.FromString, tf_record_iterator(sys.argv[1]))
print(json.dumps([[e.file_version, e.session_log.status, e.step, {v.tag: v.simple_value for v in e.summary.value}]
                  for e in events]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_what_is_written(tmp_path):
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    events = EventFile(tmp_path, step=300)
    events.add({"loss/train": 0.5, f"accuracy/{'é' * 100}": 1.0}, 301)
    events.add({"perplexity/a": 1e300, "loss/a": math.nan}, 2**40)
    (path,) = tmp_path.iterdir()
    ran = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True)
    first, begun, *added = json.loads(ran.stdout)
    assert first == ["brain.Event:2", 0, 0, {}]
    assert begun == ["", 1, 300, {}]
    assert added[0] == ["", 0, 301, {"loss/train": 0.5, f"accuracy/{'é' * 100}": 1.0}]
    assert added[1][2] == 2**40
    assert math.isinf(added[1][3]["perplexity/a"])
    assert math.isnan(added[1][3]["loss/a"])
