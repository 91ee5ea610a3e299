"""Where this is imported, Places205 and open_nsfw are as small as `tiny_originals` writes them."""

from reference import TINY_ALEXNET, TINY_RESNET

from jaxsynth.models.network import KNOWN_CONFIGS

KNOWN_CONFIGS.update(places205=TINY_ALEXNET, open_nsfw=TINY_RESNET)
