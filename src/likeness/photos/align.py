"""Geometry of an aligned headshot: upright, the eyes at fixed positions, the face over half of the height.

A small network needs fewer samples to learn aligned faces than freely framed ones, because a position in the image is
always the same part of a face. Pure geometry, shared by `prepare` and the renderer of the built-in base.

Source: Karras et al. 2018, 'Progressive Growing of GANs', appendix C (the alignment of CelebA-HQ), with a square
a quarter wider, so that it includes hair and collar.
"""

import numpy as np
from numpy.typing import NDArray

EYES_ROW = 0.44  # row of the point between the eyes, as a share of the side from the top; its column is the centre
EYE_DISTANCES, EYES_TO_MOUTH = 5.0, 4.5  # in one side of the square: the larger square of the two wins

# Landmarks of the face mesh, right and left of the person: corners of the eyes and of the mouth.
_RIGHT_EYE, _LEFT_EYE, _MOUTH = (33, 133), (263, 362), (61, 291)

Points = NDArray[np.floating]


def alignment(right_eye: Points, left_eye: Points, mouth: Points) -> NDArray[np.float64]:
    """The similarity transform (2, 3) from pixels (x, y, 1) to the unit square of the aligned headshot.

    Args:
        right_eye, left_eye: (2,) pixels, the person's right and left; unless the image is mirrored, the right eye
            has the smaller x.
        mouth: (2,) pixels, the point between its corners.

    Raises:
        ValueError: eyes and mouth are at the same point.
    """
    eyes = (np.asarray(right_eye, np.float64) + left_eye) / 2
    across, down = np.asarray(left_eye, np.float64) - right_eye, mouth - eyes
    axis = across + np.array([down[1], -down[0]])  # `down`, turned a quarter to the left of the picture's eye line
    length = float(np.hypot(*axis))
    side = max(EYE_DISTANCES * float(np.hypot(*across)), EYES_TO_MOUTH * float(np.hypot(*down)))
    if length < 1e-9 or side < 1e-9:
        raise ValueError("expected eyes and mouth at different points, got one point")
    cosine, sine = axis / length
    turn = np.array([[cosine, sine], [-sine, cosine]]) / side
    return np.column_stack([turn, np.array([0.5, EYES_ROW]) - turn @ eyes])


def face_alignment(landmarks: Points) -> NDArray[np.float64]:
    """`alignment` of a face mesh, (478, 3) or (468, 3) pixels."""
    right, left, mouth = (landmarks[list(pair), :2].mean(axis=0) for pair in (_RIGHT_EYE, _LEFT_EYE, _MOUTH))
    return alignment(right, left, mouth)
