"""Found by processes that a training script spawns: they inherit its ``sys.path``, but not the finders of imports.

Last on that path, so that an installed package of this name is found before it.
"""

from pkgutil import extend_path

from trainyard.tasks.runtime import azureml_compat

__path__ = extend_path(__path__, __name__)
azureml_compat.install()
