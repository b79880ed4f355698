"""Real parts for tests and benchmarks: servers, a stand-in for the model, strict clients."""
