"""The local model's child on computers that cannot bear it: each module is one to be run."""

from agentsite.local_model.supervisor import LocalModel


class WithoutAvx2(LocalModel):
    child = "tests.support.crippled.without_avx2"


class WithoutRuntime(LocalModel):
    child = "tests.support.crippled.without_runtime"


class KilledByProcessor(LocalModel):
    child = "tests.support.crippled.killed_by_processor"


class Crashing(LocalModel):
    child = "tests.support.crippled.crashing"
