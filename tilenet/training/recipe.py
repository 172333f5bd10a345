"""How to train, as one frozen value.

Every parameter stands here once, with its default and the source of the default. Unknown keys and
contradictions are errors (:func:`tilenet.strict_toml.validate`): a recipe that is read is a recipe
that is carried out.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, zyx
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity, OwnStatistics

#: Output voxels per patch that are aimed at where the recipe says nothing, (z, y, x).
DEFAULT_PATCH: dict[str, ZYX] = {
    "planar": (1, 256, 256),
    "anisotropic": (8, 96, 96),
    "volumetric": (24, 56, 56),
}

#: Top levels of an anisotropic network that are 1 along z, where the recipe says nothing.
DEFAULT_PLANAR_LEVELS = 2

#: Momentum of SGD where the recipe says nothing.
DEFAULT_MOMENTUM = 0.99

#: Poolings where the recipe says nothing.
DEFAULT_DEPTH = {"planar": 4, "anisotropic": 4, "volumetric": 3}

_Triple = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class Network(_Part):
    """The network to train."""

    # 2-D, section by section; 2-D kernels in the top levels and 3-D ones below, for serial
    # sections; 3-D.
    kind: Literal["planar", "anisotropic", "volumetric"] = "planar"
    # Channels at full resolution, doubled at every level; 64 in Ronneberger et al. 2015.
    base_channels: int = Field(default=16, ge=1, le=1024)
    # Number of poolings; 4, or 3 when volumetric.
    depth: int | None = Field(default=None, ge=1, le=6)
    # Top levels of an anisotropic network whose kernels and pooling are 1 along z, the depth at
    # most; 2 in the authors' own network for serial-section EM.
    planar_levels: int | None = Field(default=None, ge=1)
    # Probability of dropping a feature at the end of the contracting path.
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.planar_levels is None:
            return self
        if self.kind != "anisotropic":
            raise ValueError(f"a {self.kind} network has no planar_levels: leave them out")
        if self.planar_levels > self.levels:
            raise ValueError(
                f"planar_levels {self.planar_levels} of depth {self.levels} leave nothing in 3-D: "
                'give fewer, or kind = "planar"'
            )
        return self

    @property
    def levels(self) -> int:
        return self.depth or DEFAULT_DEPTH[self.kind]

    def architecture(self, in_channels: int, out_channels: int) -> UNetArchitecture:
        depth = self.levels
        levels = range(depth + 1)
        mixed = self.planar_levels or min(DEFAULT_PLANAR_LEVELS, depth)
        flat = {"planar": depth + 1, "anisotropic": mixed, "volumetric": 0}[self.kind]
        return UNetArchitecture(
            channels=tuple(self.base_channels * 2**level for level in levels),
            kernels=tuple((1, 3, 3) if level < flat else (3, 3, 3) for level in levels),
            pools=tuple((1, 2, 2) if level < flat else (2, 2, 2) for level in range(depth)),
            in_channels=in_channels,
            out_channels=out_channels,
            dropout=self.dropout,
        )


class Optimization(_Part):
    """The loop."""

    # Number of updates of the weights.
    steps: int = Field(default=1000, ge=1)
    # Patches per update and process; 1 in Ronneberger et al. 2015, who prefer large patches.
    batch: int = Field(default=1, ge=1)
    # Output voxels per patch, (z, y, x), legal for the network.
    patch: ZYX | None = None
    # Stochastic gradient descent with momentum, as the paper; or AdamW, which needs fewer steps.
    optimizer: Literal["sgd", "adamw"] = "sgd"
    # At its height. The paper states none; 0.01 for SGD and 0.001 for AdamW were tried here.
    learning_rate: float | None = Field(default=None, gt=0)
    # Of SGD alone; 0.99, as in the paper. With AdamW the decay of the first moment is 0.9.
    momentum: float | None = Field(default=None, ge=0, lt=1)
    # Of either optimizer.
    weight_decay: float = Field(default=0.0, ge=0)
    # What follows the linear rise of the learning rate.
    schedule: Literal["cosine", "constant"] = "cosine"
    # Share of the steps over which the learning rate rises.
    warm_up: float = Field(default=0.1, ge=0, le=1)
    # Gradients are clipped to it: momentum 0.99 makes one bad patch felt for 100 steps.
    gradient_norm: float = Field(default=1.0, gt=0)
    # Data type of the convolutions; weights, gradients' sums and the loss stay float32. None means
    # bfloat16 on GPUs and float32 on CPUs; CPUs with AVX-512 BF16 or AMX train about twice as fast
    # in bfloat16 (measured), others slower.
    precision: Literal["float32", "bfloat16"] | None = None
    # Decides the first weights, the patches and what is drawn for each of them.
    seed: int = Field(default=0, ge=0)
    # Steps between two checkpoints: what a crash loses.
    checkpoint_every: int = Field(default=250, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer == "adamw" and self.momentum is not None:
            raise ValueError(f"momentum {self.momentum} belongs to sgd, not to adamw: leave it out")
        return self

    @property
    def inertia(self) -> float:
        """The momentum of SGD."""
        return DEFAULT_MOMENTUM if self.momentum is None else self.momentum

    @property
    def height(self) -> float:
        return self.learning_rate or {"sgd": 0.01, "adamw": 0.001}[self.optimizer]


class Targets(_Part):
    """What label values mean."""

    # Labels are instances: learn inside (every value that is not the background) against outside.
    binary: bool = False
    # Label value that is the background, where instances are labelled; 0, but cleft annotations of
    # CREMI have 2^64 - 1.
    background: int | None = None
    # Voxels of background made where two instances touch, as in the paper's DIC-HeLa labels.
    gap: int = Field(default=0, ge=0)
    # Label value that says nothing: these voxels have weight 0.
    ignore: int | None = None
    # How many label values are classes: more than 8 are taken for instances where nothing says it.
    classes: int | None = Field(default=None, ge=2, le=1024)
    # Names of the classes, ascending by label value.
    names: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gap and not self.binary:
            raise ValueError("a gap is made between instances, so binary = true belongs to it")
        if self.background is not None and not self.binary:
            raise ValueError(
                f"background {self.background} lies around instances, so binary = true belongs to "
                "it; without it every label value is a class"
            )
        if self.binary and (self.background or 0) == self.ignore:
            raise ValueError(f"{self.ignore} cannot be both the background and ignored")
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError(f"names {', '.join(self.names)}: name each class once")
        known = 2 if self.binary else len(self.names) if self.names is not None else self.classes
        if self.classes is not None and self.classes != known:
            whose = "binary = true makes" if self.binary else "names has"
            raise ValueError(f"classes = {self.classes}, but {whose} {known}")
        return self

    @property
    def expected(self) -> int | None:
        """Classes that there are to be, if the recipe says so."""
        return self.classes or (None if self.names is None else len(self.names))


class GreyValues(_Part):
    """How grey values are normalised."""

    # By mean and standard deviation of all training regions together (pooled), or of each whole raw
    # volume, as a prediction takes them (volume), or MEAN,STD, or window:LOW,HIGH. The model stores
    # numbers, or the rule "volume".
    rule: str = "pooled"
    # Percentiles at which grey values are clipped, before mean and standard deviation are taken;
    # the model stores the grey values that they are.
    clip: tuple[float, float] | None = None
    # Grey value outside the specimen, left out of mean, standard deviation and percentiles.
    void: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            OwnStatistics(self.clip, self.void)
            if self.rule in ("pooled", "volume"):
                return self
            assert self.numbers is not None
        except InvalidData as error:
            raise ValueError(str(error)) from error
        if self.clip is not None or self.void is not None:
            raise ValueError(
                f"clip and void belong to statistics, and the rule {self.rule} has none: leave them"
                " out"
            )
        return self

    @property
    def numbers(self) -> Intensity | None:
        """The rule where it is given as numbers."""
        if self.rule in ("pooled", "volume"):
            return None
        return Intensity.from_text(self.rule, "pooled, volume")

    @property
    def own(self) -> OwnStatistics | None:
        """The rule where each volume has its own numbers."""
        return OwnStatistics(self.clip, self.void) if self.rule == "volume" else None


class Sampling(_Part):
    """Where patches come from."""

    # Every place alike (uniform); around labelled voxels, for sparse labels (labelled); or around
    # voxels of each class alike, for rare classes (class). Where a label value is ignored the
    # default is labelled, else uniform.
    positions: Literal["labelled", "uniform", "class"] | None = None
    # Threads that read ahead.
    readers: int = Field(default=2, ge=1)
    # Patches read ahead at most.
    queue: int = Field(default=6, ge=1)


class Augmentation(_Part):
    """What is done to patches; all of it is drawn anew for every patch, from the seed."""

    # Mirror along every axis with probability 1/2.
    flips: bool = True
    # Angle in the section: uniform in 0 to 360 degrees, quarter turns, or none.
    rotation: Literal["any", "quarter", "none"] = "any"
    # Standard deviation of the displacement of control points, voxels, (z, y, x): 10 in Ronneberger
    # et al. 2015; 2, 10, 10 in the authors' network for serial sections.
    elastic_std: _Triple = (0.0, 10.0, 10.0)
    # Distance of control points, voxels, (z, y, x), at least 1; 0 makes the displacement the same
    # all along an axis. 150 with patches of 540 in the authors' networks, about the paper's 3 x 3
    # grid.
    elastic_spacing: _Triple = (0.0, 150.0, 150.0)
    # Grey values run through a smooth monotone curve of slopes 1 - this to 1 + this; 0.2 in the
    # authors' later networks, 0 leaves them.
    grey_slope: float = Field(default=0.2, ge=0, lt=1)
    # Largest shift of all grey values, standard deviations of the volume.
    grey_shift: float = Field(default=0.1, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.elastic_std) < 0 or min(self.elastic_spacing) < 0:
            raise ValueError("elastic_std and elastic_spacing cannot be negative")
        if any(0 < spacing < 1 for spacing in self.elastic_spacing):
            raise ValueError("elastic_spacing is 0 or at least 1 voxel along every axis")
        if any(self.elastic_std) and not any(self.elastic_spacing):
            raise ValueError("elastic_spacing is 0 along every axis: nothing would be deformed")
        return self


class Validation(_Part):
    """The held-out box."""

    # Start and stop along (z, y, x) in the first volume; none is trained on.
    region: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    # Steps between two validations.
    every: int = Field(default=200, ge=1)
    # By which the best model is chosen and kept.
    select: Literal["loss", "pixel_error", "rand_error"] = "loss"


class Recipe(_Part):
    """All of it.

    Parameters
    ----------
    network : Network
    optimization : Optimization
    targets : Targets
    intensity : GreyValues
    sampling : Sampling
    augmentation : Augmentation
    validation : Validation
    """

    network: Network = Network()
    optimization: Optimization = Optimization()
    targets: Targets = Targets()
    intensity: GreyValues = GreyValues()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    validation: Validation = Validation()

    @model_validator(mode="after")
    def _choose_positions(self) -> Self:
        # Here, so that what is stored says what was done.
        if self.sampling.positions is None:
            positions = "uniform" if self.targets.ignore is None else "labelled"
            chosen = self.sampling.model_copy(update={"positions": positions})
            self.__dict__["sampling"] = chosen  # the recipe is frozen
        return self

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values, of which the same recipe can be made."""
        return self.model_dump(mode="json")

    def patch_for(self, architecture: UNetArchitecture, room: ZYX) -> ZYX:
        """Give the output shape of a patch, (z, y, x): the recipe's, refused if it is not legal.

        Without one it is the usual one of the kind, as far as there is room.
        """
        if self.optimization.patch is not None:
            architecture.input_for(self.optimization.patch)
            return self.optimization.patch
        usual = architecture.output_for(DEFAULT_PATCH[self.network.kind])
        sizes = zip(architecture.laws, usual, room, strict=True)
        return zyx(n if n <= most else min(law.nearest_outputs(most)) for law, n, most in sizes)
