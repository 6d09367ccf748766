"""The small functions between the networks: anchors, blending, the closer look's views."""

import numpy as np

from likeness.photos import blazeface, mesh

SIXTEEN = mesh.REGION_CELLS


def test_anchors_are_the_cells_middles() -> None:
    near, far = blazeface.anchor_centres(blazeface.NEAR), blazeface.anchor_centres(blazeface.FAR)
    assert near.shape == (16 * 16 * 2 + 8 * 8 * 6, 2) and far.shape == (48 * 48, 2)
    assert near[:3].tolist() == [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]]
    assert near[-1].tolist() == [15 / 16, 15 / 16]


def test_offsets_are_from_the_anchor() -> None:
    offsets = np.zeros((1, 16))
    offsets[0, :6] = 0.1, 0.0, 0.4, 0.2, 0.0, -0.1  # centre, size, the first point
    boxes = blazeface.decoded(offsets, np.array([[0.5, 0.25]]))
    np.testing.assert_allclose(boxes[0, :3], [[0.4, 0.15], [0.8, 0.35], [0.5, 0.15]])


def test_overlapping_boxes_are_blended_by_score() -> None:
    def box(left: float) -> np.ndarray:
        return np.array([[left, 0.0], [left + 1, 1.0], *[[left, left]] * 6])

    groups = blazeface.blended(np.stack([box(0.2), box(5.0), box(0.0)]), np.array([0.5, 0.9, 0.75]))
    assert [score for _, score in groups] == [0.9, 0.75]
    np.testing.assert_allclose(groups[1][0], box(0.2 * 0.5 / 1.25))
    assert blazeface.blended(np.zeros((0, 8, 2)), np.zeros(0)) == []


def test_a_level_region_is_its_box_with_context() -> None:
    part = mesh.Region((0, 1, 2), (0, 1), 1.5)
    landmarks = np.array([[10.0, 20.0], [18.0, 20.0], [14.0, 24.0]])
    transform = mesh.region(landmarks, part)
    corners = transform @ np.array([[0, 0, 1], [SIXTEEN, SIXTEEN, 1]]).T
    np.testing.assert_allclose(corners.T, [[8.0, 19.0], [20.0, 25.0]])  # 8 x 4 cells, half as much again


def test_a_regions_landmarks_come_back_where_they_were() -> None:
    part = mesh.Region((0, 1, 2), (0, 1), 1.5)
    landmarks = np.array([[10.0, 20.0], [16.0, 26.0], [11.0, 25.0]])  # leans by 45 degrees
    transform = mesh.region(landmarks, part)
    np.testing.assert_allclose(transform[1, 0], transform[0, 0])
    seen = (landmarks - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
    np.testing.assert_allclose(seen[0, 1], seen[1, 1])  # level
    np.testing.assert_allclose(mesh.placed(seen * 4, transform), landmarks * 4)


def test_the_closer_look_interpolates_and_is_empty_outside() -> None:
    rows, columns = np.mgrid[0:48, 0:48].astype(np.float32)
    features = np.stack([columns, rows], axis=-1)[None]
    looked = mesh.looked_at(features, np.array([[0.5, 0.0, 4.0], [0.0, 0.5, 44.0]]))[0]
    np.testing.assert_allclose(looked[0, :, 0], 4.0 + 0.5 * (np.arange(SIXTEEN) + 0.5) - 0.5)
    inside = 44.0 + 0.5 * (np.arange(SIXTEEN) + 0.5) - 0.5
    np.testing.assert_allclose(looked[:, 0, 1], np.where(inside <= 47, inside, 0))
