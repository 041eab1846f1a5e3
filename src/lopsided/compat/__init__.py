"""Losses of other projects under their own names, with their own arguments and defaults: change the import, no more.

    from lopsided.compat.timm import AsymmetricLossMultiLabel  # was: from timm.loss import AsymmetricLossMultiLabel

There is a module for each project. Values and gradients are those of the original where that is finite, but for what
docs/migration.md lists. `eps` is taken and not used: no probability is clamped before its logarithm.
"""
