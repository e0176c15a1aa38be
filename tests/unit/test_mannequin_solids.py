"""Solids, meshes and the z-buffer: what the mannequins are made of."""

from collections import Counter

import numpy as np
import pytest

from drape.mannequin import raster
from drape.mannequin.anatomy import HAIR, rest_mesh
from drape.mannequin.implicit import cut, ellipsoid, round_cone, smooth_profile, surface, union

ORIGIN = np.zeros(3)


def sphere(p: np.ndarray) -> np.ndarray:
    return np.linalg.norm(p, axis=1) - 0.47


def directed_edges(triangles: np.ndarray) -> Counter:
    return Counter((int(t[i]), int(t[(i + 1) % 3])) for t in triangles for i in range(3))


def test_a_round_cone_of_equal_radii_is_a_capsule() -> None:
    ends = np.array([0.0, 0, 0]), np.array([1.0, 0, 0])
    p = np.array([[0.5, 0.3, 0], [-0.4, 0, 0], [1.0, 0, 0.2]])
    assert np.allclose(round_cone(p, *ends, 0.2, 0.2), [0.1, 0.2, 0.0])


def test_an_ellipsoid_is_zero_on_its_surface_and_negative_inside() -> None:
    radii = np.array([0.5, 1.0, 2.0])
    directions = np.random.default_rng(0).normal(size=(50, 3))
    on = directions / np.linalg.norm(directions, axis=1, keepdims=True) * radii
    assert np.abs(ellipsoid(on, ORIGIN, radii)).max() < 1e-9
    assert ellipsoid(0.9 * on, ORIGIN, radii).max() < 0 < ellipsoid(1.1 * on, ORIGIN, radii).min()


def test_a_smooth_union_only_adds_and_a_smooth_cut_only_removes() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 200))
    assert (union(0.5, a, b) <= np.minimum(a, b)).all()
    assert (cut(0.5, a, b) >= np.maximum(a, -b)).all()


def test_a_smooth_union_is_the_minimum_far_from_the_seam() -> None:
    assert union(0.1, np.array([0.0]), np.array([0.2]))[0] == 0.0


def test_a_profile_passes_through_its_knots_and_is_constant_outside() -> None:
    knots, values = np.array([0.0, 1, 3, 4]), np.array([1.0, 2, 0, 5])
    assert np.allclose(smooth_profile(knots, knots, values), values)
    assert np.allclose(smooth_profile(np.array([-1.0, 9.0]), knots, values), [1.0, 5.0])


def test_the_surface_of_a_sphere_lies_on_the_sphere() -> None:
    mesh = surface(sphere, np.full(3, -0.7), np.full(3, 0.7), 0.1)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.47).max() < 2e-3


@pytest.mark.parametrize("part", ["body", "top", "lower", "skirt", "hand", "head", *HAIR])
def test_every_part_is_closed_and_turned_outwards(part: str) -> None:
    mesh = rest_mesh(part)
    edges = directed_edges(mesh.triangles)
    assert all(edges[(b, a)] == count for (a, b), count in edges.items())
    a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
    assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0, "the enclosed volume is positive"


def test_normals_of_a_sphere_point_away_from_its_centre() -> None:
    mesh = surface(sphere, np.full(3, -0.7), np.full(3, 0.7), 0.1)
    normals = raster.vertex_normals(mesh.vertices.astype(np.float32), mesh.triangles)
    assert ((normals * mesh.vertices).sum(1) / 0.47).min() > 0.97


def square(z: float, keep: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square over the middle of an 8 x 8 picture: points, triangles, keep."""
    points = np.array([[2, 2, z], [6, 2, z], [6, 6, z], [2, 6, z]], np.float32)
    return points, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.full(4, keep, np.float32)


def test_a_square_fills_exactly_its_pixels_whatever_its_winding() -> None:
    points, triangles, keep = square(0.0)
    for order in (triangles, triangles[:, ::-1].copy()):
        hits = raster.fill(points, order, keep, (8, 8))
        expected = np.zeros((8, 8), bool)
        expected[2:6, 2:6] = True
        assert ((hits.triangle >= 0) == expected).all()


def test_the_nearer_surface_is_seen_in_either_order() -> None:
    near, far = square(1.0), square(0.0)
    for first, second in ((near, far), (far, near)):
        points = np.concatenate([first[0], second[0]])
        triangles = np.concatenate([first[1], second[1] + 4]).astype(np.int32)
        hits = raster.fill(points, triangles, np.ones(8, np.float32), (8, 8))
        assert (hits.depth[2:6, 2:6] == 1.0).all()


def test_a_fragment_that_is_cut_away_shows_what_lies_behind() -> None:
    near, far = square(1.0), square(0.0)
    points = np.concatenate([near[0], far[0]])
    triangles = np.concatenate([near[1], far[1] + 4]).astype(np.int32)
    keep = np.array([1, -1, -1, 1, 1, 1, 1, 1], np.float32)  # the right half of the nearer square is gone
    depth = raster.fill(points, triangles, keep, (8, 8)).depth
    assert (depth[2:6, 2:4] == 1.0).all()
    assert (depth[2:6, 4:6] == 0.0).all()


def test_values_are_interpolated_linearly() -> None:
    points, triangles, keep = square(0.0)
    hits = raster.fill(points, triangles, keep, (8, 8))
    values = raster.interpolate(hits.triangle, hits.weights, triangles, points[:, :2].copy())
    rows, columns = np.nonzero(hits.triangle >= 0)
    assert np.allclose(values[rows, columns], np.stack([columns + 0.5, rows + 0.5], 1), atol=1e-5)


def test_bilinear_reading_reproduces_a_plane_and_repeats_the_edge() -> None:
    y, x = np.meshgrid(np.arange(5) + 0.5, np.arange(7) + 0.5, indexing="ij")
    image = np.stack([2 * x + 3 * y], -1).astype(np.float32)
    at = np.random.default_rng(2).uniform(0.6, 4.4, (2, 40)).astype(np.float32)
    assert np.allclose(raster.bilinear(image, *at)[:, 0], 2 * at[0] + 3 * at[1], atol=1e-4)
    outside = raster.bilinear(image, np.array([-9.0], np.float32), np.array([0.5], np.float32))
    assert np.allclose(outside, image[0, 0], atol=1e-2)
