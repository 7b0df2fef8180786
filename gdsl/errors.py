"""The errors that gdsl raises on purpose. Those of the language itself are in ``gdsl.language.errors``."""


class GdslError(Exception):
    """Something a user can put right: the message says how."""


class GraphError(GdslError, ValueError):
    """A graph that cannot be: indices out of range, a wrong shape or dtype, sizes that clash."""


class InputError(GdslError, ValueError):
    """A layer called with arguments that do not fit its program."""


class DistributedError(GdslError, RuntimeError):
    """Another process of a run that has failed, or that does not answer."""


class CompilerError(GdslError, RuntimeError):
    """No C++ compiler, or one that rejected a generated kernel."""


class CacheError(GdslError, RuntimeError):
    """A folder of compiled kernels that is not safe to load from."""


class ProgramError(GdslError, ValueError):
    """A program with a node that its op does not allow: an edited or damaged file, or a mistake of a pass."""


class CommandError(GdslError):
    """A command that cannot be carried out: one line for stderr."""


class InternalWarning(RuntimeWarning):
    """A mistake of gdsl's compiler, after which a layer runs in a slower way that is right."""
