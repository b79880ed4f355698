"""The embedded model's process on computers that cannot run it: each module is one such program."""

from agentsite.local_model.supervisor import LocalModel


class WithoutAvx2(LocalModel):
    child = "tests.support.crippled.without_avx2"


class WithoutRuntime(LocalModel):
    child = "tests.support.crippled.without_runtime"


class KilledByProcessor(LocalModel):
    child = "tests.support.crippled.killed_by_processor"


class Crashing(LocalModel):
    child = "tests.support.crippled.crashing"
