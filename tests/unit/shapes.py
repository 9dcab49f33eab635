"""Generated pictures of coloured shapes with the boxes around them: synthetic, to see that a detector learns at all."""

import numpy as np

COLOURS = {"circle": (220, 60, 50), "square": (60, 180, 75), "triangle": (70, 90, 220)}


def picture(generator, side=64):
    """``(side, side, 3)`` uint8, and one to three boxes with labels that do not overlap."""
    pixels = generator.integers(60, 110, (side, side, 3)).astype(np.uint8)
    y, x = np.mgrid[:side, :side] + 0.5
    boxes = []
    for _ in range(int(generator.integers(1, 4))):
        size = int(generator.integers(12, 25))
        left, top = (int(start) for start in generator.integers(0, side - size, 2))
        box = {"xmin": left, "ymin": top, "xmax": left + size, "ymax": top + size}
        if any(_touch(box, other) for other in boxes):
            continue
        label = str(generator.choice(list(COLOURS)))
        u, v = (x - left) / size, (y - top) / size
        inside = {
            "circle": (u - 0.5) ** 2 + (v - 0.5) ** 2 <= 0.25,
            "square": (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1),
            "triangle": (v >= 0) & (v <= 1) & (abs(u - 0.5) <= v / 2),
        }[label]
        pixels[inside] = np.array(COLOURS[label]) + generator.integers(-30, 30, 3)
        boxes.append({**{name: float(value) for name, value in box.items()}, "label": label})
    return pixels, boxes


def _touch(a, b):
    return a["xmin"] < b["xmax"] and b["xmin"] < a["xmax"] and a["ymin"] < b["ymax"] and b["ymin"] < a["ymax"]
