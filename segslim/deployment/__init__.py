"""A trained network becomes the folder that ships, a Deployment, and engines run it.

A network and its options come in, files checked against it go out. This room must not know how the network was made.
`segslim.deployment.export` needs Paddle when it is called, never when it is imported.
"""

from segslim.deployment.deployment import Deployment, Precision

__all__ = ["Deployment", "Precision"]
