"""Virtual people, rendered: the training images of the built-in base model, with exact captions and masks.

Input is a pack of CC0 MakeHuman data (morph targets, meshes, textures); everything else (skin, beards, glasses,
places, styles) is procedural. Needs numpy, OpenCV and numba only.
"""
