"""Files, signals, processors and code of the machine that mvnas runs on."""
