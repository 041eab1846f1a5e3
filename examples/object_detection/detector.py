"""A small FCOS (Tian et al., arXiv 1904.01355) in plain torch, and the canvases of digits that it is trained on.

One grid of locations, center sampling in the place of centerness, and 1 - IoU for boxes.
"""

import contextlib
import io

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot

SIDE, STRIDE = 48, 4  # pixels of a canvas, and between locations
PLACES = (torch.cartesian_prod(*[torch.arange(SIDE // STRIDE)] * 2).flip(1) + 0.5) * STRIDE  # (locations, 2): x, y
Scenes = tuple[Tensor, list[tuple[Tensor, Tensor]]]  # canvases (n, 1, SIDE, SIDE); boxes (k, 4) and digits (k,) of each


def draw_scenes(rows: np.ndarray, count: int, random: np.random.Generator) -> Scenes:
    """Puts up to five of these digits, 8 to 16 pixels high, on each noisy canvas.

    Boxes are left, top, right, bottom.
    """
    digits, canvases, truth = load_digits(), random.normal(0, 0.1, (count, 1, SIDE, SIDE)), []
    for canvas in canvases[:, 0]:
        boxes, classes = [], []
        for row in random.choice(rows, random.integers(1, 6)):
            ink = digits.images[row][:, digits.images[row].any(0)] / 16
            height = int(random.integers(8, 17))
            width = max(STRIDE + 1, height * ink.shape[1] // 8)  # so that a location lies in every box
            left, top = random.integers(SIDE - width + 1), random.integers(SIDE - height + 1)
            right, bottom = left + width, top + height
            if all(left >= box[2] or box[0] >= right or top >= box[3] or box[1] >= bottom for box in boxes):
                scaled = interpolate(torch.tensor(ink[None, None]), (height, width), mode="bilinear")[0, 0]
                canvas[top:bottom, left:right] += scaled.numpy() * random.uniform(0.3, 1)
                boxes.append((left, top, right, bottom))
                classes.append(digits.target[row])
        truth.append((torch.tensor(np.array(boxes), dtype=torch.float), torch.tensor(np.array(classes))))
    return torch.tensor(canvases, dtype=torch.float), truth


def assign(boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (locations, 10) classes and (locations, 4) distances to the sides of the box; 0 far from its middle."""
    sides = torch.cat([PLACES[:, None] - boxes[:, :2], boxes[:, 2:] - PLACES[:, None]], 2)  # of all boxes
    away = (PLACES[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(2)
    near = (away <= STRIDE) & (sides.amin(2) > 0)
    positive, which = near.any(1, keepdim=True), near.float().argmax(1)
    return one_hot(classes[which], 10) * positive, sides[torch.arange(len(PLACES)), which] * positive


class Detector(nn.Module):
    """Maps canvases to class logits (n, locations, 10) and distances to the sides of a box (n, locations, 4)."""

    def __init__(self, start: Tensor, width: int = 24) -> None:
        super().__init__()
        self.trunk = nn.Sequential(step(1, 16, 2), step(16, width, 2), step(width, width), step(width, width))
        self.classes = nn.Sequential(step(width, width), nn.Conv2d(width, 10, 1))
        self.sides = nn.Sequential(step(width, width), nn.Conv2d(width, 4, 1))
        self.classes[1].bias.data.copy_(start)

    def forward(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        states = self.trunk(canvases)
        logits, sides = (part(states).flatten(2).transpose(1, 2) for part in (self.classes, self.sides))
        return logits, sides.clamp(max=4).exp() * STRIDE


def step(source: int, target: int, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(source, target, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(target), nn.ReLU())


def overlap(sides: Tensor, truth: Tensor) -> Tensor:
    """Returns the IoU of boxes about the same places, given by (n, 4) distances to left, top, right and bottom."""
    parts = sides, truth, torch.minimum(sides, truth)
    area, of_truth, common = ((each[:, 0] + each[:, 2]) * (each[:, 1] + each[:, 3]) for each in parts)
    return common / (area + of_truth - common)


@torch.no_grad()
def detect(model: Detector, canvases: Tensor) -> list[dict]:
    """Returns detections as COCO has them: of each class the best boxes that overlap no better one by half."""
    found = []
    for image, (logits, sides) in enumerate(zip(*model(canvases), strict=True)):
        boxes = torch.cat([PLACES - sides[:, :2], PLACES + sides[:, 2:]], 1)
        low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        common, area = (high - low).clamp(min=0).prod(2), (boxes[:, 2:] - boxes[:, :2]).prod(1)
        overlaps = common / (area[:, None] + area - common)
        for digit in range(10):
            left = torch.ones(len(boxes), dtype=torch.bool)
            for place in logits[:, digit].argsort(descending=True)[:20].tolist():
                if left[place]:
                    left &= overlaps[place] < 0.5
                    x, y, right, bottom = boxes[place].tolist()
                    one = {"bbox": [x, y, right - x, bottom - y], "score": float(logits[place, digit])}
                    found.append({"image_id": image + 1, "category_id": digit + 1} | one)
    return found


def average_precision(model: Detector, scenes: Scenes) -> tuple[float, float]:
    """Returns COCO's mAP, the mean over ten IoU from .5 to .95, and that at an IoU of .5."""
    coco, annotations = COCO(), []
    for image, (boxes, classes) in enumerate(scenes[1]):
        for box, digit in zip(boxes.tolist(), classes.tolist(), strict=True):
            size = [box[2] - box[0], box[3] - box[1]]
            one = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": digit + 1}
            annotations.append(one | {"bbox": [*box[:2], *size], "area": size[0] * size[1], "iscrowd": 0})
    images = [{"id": image + 1} for image in range(len(scenes[1]))]
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": i + 1} for i in range(10)]}
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(detect(model, scenes[0])), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])
