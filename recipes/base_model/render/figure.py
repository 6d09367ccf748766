"""From a person and a scene to one posed triangle mesh with materials. Without lighting or pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.base_model.render import mesh
from recipes.base_model.render.anatomy import smoothstep
from recipes.base_model.render.assets import LOWEST_Y_DM, Assets, Proxy
from recipes.base_model.render.glasses import LEFT_EYE, glasses
from recipes.base_model.render.people import Hair, Person, apply_targets
from recipes.base_model.render.raster import OPAQUE
from recipes.base_model.render.scene import EXPRESSIONS, OPEN_MOUTHS, Scene

Array = NDArray[np.float32]

# Materials; plain integers, because the shading kernel compares them.
SKIN, EYE, BROW, HAIR, CLOTH, TEETH, FRAME, LENS, LASH = range(9)

NECK_JOINT, HEAD_JOINT = slice(14534, 14542), slice(14070, 14078)  # joint markers in the base mesh
SHOULDER_Y_DM = 4.0  # skin below this is always under clothes
EXPRESSION_RACE = {"european": "caucasian", "asian": "asian", "african": "african"}
PROCEDURAL_HAIR = {"afro01": "curls", "bob01": "strands"}
FRINGE_LINE_DM = (0.16, 0.26)  # hair in front of the face fades out between these heights above the eyes
FRINGE_HALF_WIDTH_DM = (0.56, 0.70)
CHIN_Y_DM = 6.2
BROW_LIFT_DM = 0.045  # of the inner ends
CLEAR, TINTED = 0.05, 0.95  # opacity of lenses


@dataclass(frozen=True)
class Part:
    vertices: Array  # (N, 3)
    triangles: NDArray[np.int32]  # (T, 3)
    uv: Array  # (T, 3, 3): u, v, opacity
    material: int
    alpha_texture: int
    color_texture: int


@dataclass(frozen=True)
class Figure:
    vertices: Array  # (V, 3) posed; the first rows are the base mesh's, so that its fields apply
    triangles: NDArray[np.int32]  # (T, 3), opaque ones first
    uv: Array  # (T, 3, 3)
    material: NDArray[np.int32]  # (T,)
    alpha_texture: NDArray[np.int32]  # (T,)
    color_texture: NDArray[np.int32]  # (T,)
    hollow: Array  # (V,) curvature of the skin, 0 elsewhere
    head_centre: Array  # (3,)


def build_figure(person: Person, scene: Scene, assets: Assets) -> Figure:
    """Expression, hair, eyes, clothes and glasses, then the pose."""
    face = _expressive_face(person, scene, assets)
    normals = mesh.vertex_normals(face, assets.faces)
    hollow = mesh.crevices(face, assets.faces, normals)
    parts = [_skin(face, scene, assets), *_features(person, scene, face, assets)]
    if person.hair.mesh is not None:
        parts.append(_hair(person.hair, face, assets))
    parts.append(_clothes(scene, face, assets))
    if person.glasses != "none":
        frame, lenses = glasses(person.glasses, face, assets)
        parts.append(_plain(frame, FRAME))
        parts.append(_lenses(lenses, CLEAR if person.glasses != "sunglasses" else TINTED, assets))
    return _posed(parts, face, hollow, scene=scene, assets=assets)


def _expressive_face(person: Person, scene: Scene, assets: Assets) -> Array:
    race = EXPRESSION_RACE.get(person.ethnicity, "caucasian")
    units = EXPRESSIONS[scene.expression]
    weights = {f"expression/units/{race}/{unit}": value * scene.strength for unit, value in units.items()}
    if scene.expression == "neutral":  # neutral, not stern
        weights[f"expression/units/{race}/mouth-corner-puller"] = 0.3 * scene.strength
    if scene.expression in ("neutral", "smiling", "laughing"):
        for side in ("left", "right"):  # at rest the pack's brows and lids look angry
            weights[f"expression/units/{race}/eyebrows-{side}-inner-up"] = 0.4
            open_eye = f"expression/units/{race}/eye-{side}-opened-up"
            weights[open_eye] = weights.get(open_eye, 0.0) + 0.2
    if scene.style == "anime":
        weights |= {f"eyes/{side}-eye-scale-incr": 0.8 for side in "lr"}
    return apply_targets(person.vertices, weights, assets)


def _skin(face: Array, scene: Scene, assets: Assets) -> Part:
    hidden = np.zeros(len(face), bool)
    hidden[assets.proxies["clothes", scene.clothes].hidden] = True
    faces = assets.faces
    shown = ~hidden[faces].all(1) & (assets.vertices[faces][:, :, 1].max(1) >= SHOULDER_Y_DM)
    return Part(face, faces[shown], _with_opacity(assets.uv[shown]), SKIN, OPAQUE, 0)


def _features(person: Person, scene: Scene, face: Array, assets: Assets) -> list[Part]:
    brow, lash = f"eyebrow{person.brow:03d}", "eyelashes01" if person.gender == "man" else "eyelashes02"
    parts = [
        _proxy_part(assets.proxies["eyes", "high-poly"], face, EYE, texture=assets.texture_index[person.eye_texture]),
        _brow(assets.proxies["brow", brow], face, 1.05 if person.gender == "man" else 1.0, assets.texture_index[brow]),
        _lashes(_proxy_part(assets.proxies["lash", lash], face, LASH, texture=assets.texture_index[lash]), person),
    ]
    if scene.expression in OPEN_MOUTHS or scene.expression == "smiling":
        teeth = _proxy_part(assets.proxies["teeth", "teeth_base"], face, TEETH, texture=assets.texture_index["teeth"])
        parts.append(_behind_lips(_opaque(teeth)))
    return parts


def _behind_lips(part: Part) -> Part:
    """Makes the teeth a little smaller and moves them back, because expressions move the lips through them."""
    vertices = part.vertices * np.array([0.95, 1, 1], np.float32) - np.array([0, 0, 0.05], np.float32)
    return Part(vertices, part.triangles, part.uv, part.material, part.alpha_texture, part.color_texture)


def _lashes(part: Part, person: Person) -> Part:
    """Thins the lashes, which would look like spikes around the eyes."""
    opacity = np.array([1, 1, 0.35 if person.gender == "man" else 0.6], np.float32)
    return Part(part.vertices, part.triangles, part.uv * opacity, LASH, part.alpha_texture, part.color_texture)


def _brow(proxy: Proxy, face: Array, thickness: float, texture: int) -> Part:
    """Makes each brow a little thicker about its middle line, because the mesh's are thin at 128 px."""
    part = _proxy_part(proxy, face, BROW, texture=texture)
    vertices = part.vertices.copy()
    for side in (vertices[:, 0] > 0, vertices[:, 0] <= 0):
        middle = np.poly1d(np.polyfit(vertices[side, 0], vertices[side, 1], 2))(vertices[side, 0])
        vertices[side, 1] = middle + (vertices[side, 1] - middle) * thickness
    # The pack's brows dip towards the nose, which reads as a frown.
    vertices[:, 1] += BROW_LIFT_DM * smoothstep(0.42, 0.14, np.abs(vertices[:, 0]))
    vertices[:, 2] += 0.012
    return Part(vertices, part.triangles, part.uv, BROW, texture, texture)


def _hair(hair: Hair, face: Array, assets: Assets) -> Part:
    assert hair.mesh is not None
    proxy = assets.proxies["hair", hair.mesh]
    texture = assets.texture_index[PROCEDURAL_HAIR.get(hair.mesh, f"{hair.mesh}_diffuse")]
    vertices = _fitted(proxy, face)
    if hair.mirrored:
        vertices = vertices * np.array([-1, 1, 1], np.float32)
    vertices = _hair_shape(hair, vertices, face)
    return Part(
        vertices, proxy.faces, _with_opacity(proxy.uv, _fringe(vertices, face)[proxy.faces]), HAIR, texture, texture
    )


def _hair_shape(hair: Hair, vertices: Array, face: Array) -> Array:
    """Volume about the skull, length below the chin, waves along the strands."""
    centre = face[HEAD_JOINT].mean(0) + np.array([0, 0.35, 0.1], np.float32)
    x, y, z = vertices.T
    above = smoothstep(CHIN_Y_DM - 0.4, CHIN_Y_DM + 0.6, y)[:, None]
    shaped = centre + (vertices - centre) * (1 + (hair.volume - 1) * above)
    below = np.minimum(0, shaped[:, 1] - CHIN_Y_DM)
    shaped[:, 1] += below * (hair.length - 1)
    phase = 9.0 * y + 3.0 * np.sin(2.3 * x + hair.volume * 40)
    wave = hair.curl * np.stack([np.sin(phase + 5 * z), 0.5 * np.sin(1.7 * phase + 6 * x), np.cos(phase + 4 * x)], 1)
    free = smoothstep(0.1, 0.5, np.abs(y - centre[1]) + np.abs(x))[:, None]
    return np.asarray(shaped + wave * free, np.float32)


def _fringe(vertices: Array, face: Array) -> Array:
    """Opacity that keeps hair off the eyes: 0 in front of the face below the brows, (N,)."""
    x, y, z = vertices.T
    eye_y, eye_z = face[LEFT_EYE].mean(0)[1:]
    aside = smoothstep(*FRINGE_HALF_WIDTH_DM, np.abs(x))
    above = smoothstep(eye_y + FRINGE_LINE_DM[0], eye_y + FRINGE_LINE_DM[1], y)
    behind = smoothstep(eye_z - 0.2, eye_z - 0.4, z)
    below = smoothstep(eye_y - 0.9, eye_y - 1.1, y)
    return np.maximum.reduce([aside, above, behind, below]).astype(np.float32)


def _clothes(scene: Scene, face: Array, assets: Assets) -> Part:
    proxy = assets.proxies["clothes", scene.clothes]
    vertices = _fitted(proxy, face)
    near = vertices[proxy.faces][:, :, 1].max(1) > LOWEST_Y_DM
    texture = assets.texture_index.get(f"{scene.clothes}_diffuse", assets.texture_index["strands"])
    return Part(vertices, proxy.faces[near], _with_opacity(proxy.uv[near]), CLOTH, OPAQUE, texture)


def _fitted(proxy: Proxy, face: Array) -> Array:
    scale = np.ones(3, np.float32)
    for axis, entry in enumerate(proxy.scales):
        if entry is not None:
            first, second, canonical = entry
            scale[axis] = abs(face[first, axis] - face[second, axis]) / canonical
    return mesh.fit(proxy.index, proxy.weights, proxy.offset, scale, host=face)


def _proxy_part(proxy: Proxy, face: Array, material: int, *, texture: int) -> Part:
    return Part(_fitted(proxy, face), proxy.faces, _with_opacity(proxy.uv), material, texture, texture)


def _opaque(part: Part) -> Part:
    return Part(part.vertices, part.triangles, part.uv, part.material, OPAQUE, part.color_texture)


def _plain(geometry: tuple[Array, NDArray[np.int32]], material: int) -> Part:
    vertices, triangles = geometry
    return Part(vertices, triangles, np.zeros((len(triangles), 3, 3), np.float32), material, OPAQUE, 0)


def _lenses(geometry: tuple[Array, NDArray[np.int32]], opacity: float, assets: Assets) -> Part:
    part, texture = _plain(geometry, LENS), assets.texture_index["strands"]  # a texture of full alpha
    uv = part.uv + np.array([0, 0, opacity], np.float32)
    return Part(part.vertices, part.triangles, uv, LENS, texture, texture)


def _with_opacity(uv: Array, opacity: Array | None = None) -> Array:
    factor = np.ones(uv.shape[:2], np.float32) if opacity is None else opacity
    return np.concatenate([uv, factor[..., None]], 2).astype(np.float32)


def _posed(parts: list[Part], face: Array, hollow: Array, *, scene: Scene, assets: Assets) -> Figure:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    neck = face[NECK_JOINT].mean(0) + np.array([0, 0.25, 0.25], np.float32)
    weight = np.concatenate([_head_weight(part, neck, assets) for part in parts])
    head_turn = mesh.rotation(scene.yaw_deg - scene.body_yaw_deg, scene.pitch_deg, scene.roll_deg)
    body_turn = mesh.rotation(scene.body_yaw_deg, 0, 0)
    arm = vertices - neck
    turned = (arm + (arm @ head_turn.T - arm) * weight[:, None]) @ body_turn.T + neck
    skull = face[HEAD_JOINT].mean(0) + np.array([0, 0.25, 0.55], np.float32) - neck
    count = [len(part.triangles) for part in parts]
    alpha = np.repeat([part.alpha_texture for part in parts], count).astype(np.int32)
    order = np.argsort(alpha >= 0, kind="stable")
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)])
    return Figure(
        vertices=turned.astype(np.float32),
        triangles=triangles[order].astype(np.int32),
        uv=np.concatenate([part.uv for part in parts])[order],
        material=np.repeat([part.material for part in parts], count)[order].astype(np.int32),
        alpha_texture=alpha[order],
        color_texture=np.repeat([part.color_texture for part in parts], count)[order].astype(np.int32),
        hollow=np.concatenate([hollow, np.zeros(len(vertices) - len(face), np.float32)]),
        head_centre=((skull @ head_turn.T) @ body_turn.T + neck).astype(np.float32),
    )


def _head_weight(part: Part, neck: Array, assets: Assets) -> Array:
    height = part.vertices[:, 1]
    if part.material == SKIN:
        return assets.head_weight
    if part.material == CLOTH:
        return (0.5 * smoothstep(neck[1] - 0.15, neck[1] + 0.5, height)).astype(np.float32)
    if part.material == HAIR:  # long hair lies on the shoulders, which stay
        return (0.2 + 0.8 * smoothstep(neck[1] - 0.9, neck[1] + 0.4, height)).astype(np.float32)
    return np.ones(len(height), np.float32)
