"""Backends: file formats of networks and the runtimes that execute them, one file or folder each.

The file name is the backend's name and the class that it defines is `Backend`; a backend of your own is a module
anywhere, named with dots (`--backend mine.runtime`, `--format mine.runtime`). What the class offers:

    Runtime     what every one has: it writes a graph, runs it and times it
    Format      its files are shipped, so `export` writes and checks them
    Device      it is on another device, which times itself
    Profiler    it tells what each node takes inside a network
    Runner      it keeps a file open from one image to the next

`mvnas.testing.backend` has the laws of both the first, to be run on a backend of your own. A format that has no
converter of its own is a `mvnas.lowering.Builder`, as TFLite, ONNX and Core ML are here.
"""

from __future__ import annotations

from mvnas.backends._loading import backend as backend
from mvnas.backends._loading import formats as formats
from mvnas.backends._loading import names as names
from mvnas.backends._loading import one_by_one as one_by_one
from mvnas.backends._loading import settings as settings
from mvnas.backends._loading import ships as ships
from mvnas.backends._protocol import Device as Device
from mvnas.backends._protocol import Format as Format
from mvnas.backends._protocol import Profiler as Profiler
from mvnas.backends._protocol import Runner as Runner
from mvnas.backends._protocol import Runtime as Runtime
from mvnas.backends._tables import chosen_settings as chosen_settings
from mvnas.backends._tables import format_of as format_of
from mvnas.backends._tables import of_table as of_table
from mvnas.backends._timing import Sample as Sample
from mvnas.backends._timing import Stopwatch as Stopwatch
from mvnas.backends._timing import stopwatch as stopwatch
