"""Where eyes and mouth go in an aligned headshot: upright, the eyes at fixed places, the face over half of the height.

A small network learns aligned faces from a part of the samples that free framing takes, since a place in the picture
then means the same part of a face every time. Pure geometry; `prepare` and the renderer of the built-in base share it.

Source: Karras et al. 2018, 'Progressive Growing of GANs', appendix C (the alignment of CelebA-HQ), with a square that
is a quarter wider, so that hair and collar are in the picture.
"""

import numpy as np
from numpy.typing import NDArray

EYES_ROW = 0.44  # of the middle between the eyes, in sides from the top; its column is the middle
EYE_DISTANCES, EYES_TO_MOUTH = 5.0, 4.5  # in one side of the square: the larger square of the two wins

# Landmarks of the face mesh, right and left of the person: corners of the eyes and of the mouth.
_RIGHT_EYE, _LEFT_EYE, _MOUTH = (33, 133), (263, 362), (61, 291)

Points = NDArray[np.floating]


def alignment(right_eye: Points, left_eye: Points, mouth: Points) -> NDArray[np.float64]:
    """The similarity (2, 3) that takes pixels (x, y, 1) into the unit square of the aligned headshot.

    Args:
        right_eye, left_eye: (2,) pixels, the person's right and left; in a picture that is not mirrored the right one
            has the smaller x.
        mouth: (2,) pixels, the middle between its corners.

    Raises:
        ValueError: eyes and mouth fall on one point.
    """
    eyes = (np.asarray(right_eye, np.float64) + left_eye) / 2
    across, down = np.asarray(left_eye, np.float64) - right_eye, mouth - eyes
    axis = across + np.array([down[1], -down[0]])  # `down`, turned a quarter to the left of the picture's eye line
    length = float(np.hypot(*axis))
    side = max(EYE_DISTANCES * float(np.hypot(*across)), EYES_TO_MOUTH * float(np.hypot(*down)))
    if length < 1e-9 or side < 1e-9:
        raise ValueError("expected eyes and a mouth at different places, got one point")
    cosine, sine = axis / length
    turn = np.array([[cosine, sine], [-sine, cosine]]) / side
    return np.column_stack([turn, np.array([0.5, EYES_ROW]) - turn @ eyes])


def face_alignment(landmarks: Points) -> NDArray[np.float64]:
    """`alignment` of a face mesh, (478, 3) or (468, 3) pixels."""
    right, left, mouth = (landmarks[list(pair), :2].mean(axis=0) for pair in (_RIGHT_EYE, _LEFT_EYE, _MOUTH))
    return alignment(right, left, mouth)
