"""GPT-2's decode step as Triton kernels: five a layer, and two more for the next token.

Each reads its weights once for all rows, computes in float32, and gives a vector of a row that the next
one reads. Names: W is a matrix [outputs, width] whose rows a program takes ``TILE`` at a time, all of
their ``WIDTH`` columns at once; ``PADDED`` is that width as a power of two, since a tile has such sizes only.

**Dependent launch** (with ``DEPENDENT``, on Hopper and later): ``gdc_launch_dependents`` lets the next kernel
start before this one is over. It loads its weights, which no kernel writes, and stops at ``gdc_wait`` until
this one is over and what it has written can be read. What follows ``gdc_wait`` may read and write anything.

Triton runs these kernels on a CPU, too, when TRITON_INTERPRET=1 is set before it is first imported.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def load_tile(W, n, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Return rows ``n`` of W."""
    d = tl.arange(0, PADDED)
    mask = (n < OUTPUTS)[:, None] & (d < WIDTH)[None, :]
    return tl.load(W + n[:, None] * WIDTH + d[None, :], mask=mask, other=0.0)


@triton.jit
def load_vector(vector, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Return a vector as float32, zeros behind its end."""
    d = tl.arange(0, PADDED)
    return tl.load(vector + d, mask=d < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def layer_norm(x, weight, bias, epsilon, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Return the layer norm of the vector ``x``; ``weight`` and ``bias`` are pointers."""
    inside = tl.arange(0, PADDED) < WIDTH
    centred = tl.where(inside, x - tl.sum(x, 0) / WIDTH, 0.0)
    variance = tl.sum(centred * centred, 0) / WIDTH
    weight = load_vector(weight, WIDTH, PADDED)
    return centred * tl.rsqrt(variance + epsilon) * weight + load_vector(bias, WIDTH, PADDED)


@triton.jit
def times(tile, vector):
    """Return the product of a tile with a vector, summed up in float32."""
    return tl.sum(tile.to(tl.float32) * vector[None, :], 1)


@triton.jit
def norm_qkv(
    x, norm_weight, norm_bias, W, bias, queries, keys, values, read, epsilon,
    LENGTH: tl.constexpr, HEAD: tl.constexpr, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr,
    PADDED: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Layer norm, then query, key and value; the last two go to the cache, to position ``read``."""
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tile = load_tile(W, n, OUTPUTS, WIDTH, PADDED)
    bias = tl.load(bias + n, mask=n < OUTPUTS, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    which, column = n // WIDTH, n % WIDTH  # GPT-2 keeps all queries, then all keys, then all values
    position = tl.load(read)
    for row in tl.static_range(ROWS):
        h = load_vector(x + row * WIDTH, WIDTH, PADDED)
        h = layer_norm(h, norm_weight, norm_bias, epsilon, WIDTH, PADDED)
        y = times(tile, h) + bias
        head = row * (WIDTH // HEAD) + column // HEAD
        cached = (head * LENGTH + position) * HEAD + column % HEAD
        tl.store(queries + row * WIDTH + column, y, mask=which == 0)
        tl.store(keys + cached, y.to(keys.dtype.element_ty), mask=which == 1)
        tl.store(values + cached, y.to(values.dtype.element_ty), mask=which == 2)


@triton.jit
def attention(
    queries, keys, values, read, sums, maxima, weights, scale,
    LENGTH: tl.constexpr, HEAD: tl.constexpr, SPLITS: tl.constexpr, TILE: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One head's attention over every ``SPLITS``-th tile of positions: sum, largest score, sum of weights."""
    head, split = tl.program_id(0), tl.program_id(1)  # heads of all rows
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    count = tl.load(read) + 1
    e = tl.arange(0, HEAD)
    query = tl.load(queries + head * HEAD + e) * scale
    largest = -1e30
    weight = 0.0
    total = tl.zeros((HEAD,), tl.float32)
    for first in range(0, LENGTH, SPLITS * TILE):
        t = first + split * TILE + tl.arange(0, TILE)
        seen = t < count
        at = (head * LENGTH + t[:, None]) * HEAD + e[None, :]
        key = tl.load(keys + at, mask=seen[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + at, mask=seen[:, None], other=0.0).to(tl.float32)
        scores = tl.where(seen, tl.sum(key * query[None, :], 1), -1e30)
        larger = tl.maximum(largest, tl.max(scores, 0))
        p = tl.where(seen, tl.exp(scores - larger), 0.0)
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(p[:, None] * value, 0)
        weight = weight * shrink + tl.sum(p, 0)
        largest = larger
    part = head * SPLITS + split
    tl.store(sums + part * HEAD + e, total)
    tl.store(maxima + part, largest)
    tl.store(weights + part, weight)


@triton.jit
def combine_project(
    sums, maxima, weights, W, bias, x, y,
    HEAD: tl.constexpr, SPLITS: tl.constexpr, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr,
    PADDED: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Put the splits of the attention together, project, and add the residual ``x``."""
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tile = load_tile(W, n, OUTPUTS, WIDTH, PADDED)
    bias = tl.load(bias + n, mask=n < OUTPUTS, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    d = tl.arange(0, PADDED)
    inside = (d < WIDTH)[:, None]
    for row in tl.static_range(ROWS):
        head = row * (WIDTH // HEAD) + d // HEAD
        part = head[:, None] * SPLITS + tl.arange(0, SPLITS)[None, :]
        largest = tl.load(maxima + part, mask=inside, other=0.0)
        share = tl.exp(largest - tl.max(largest, 1)[:, None])
        weight = tl.sum(tl.load(weights + part, mask=inside, other=1.0) * share, 1)
        total = tl.load(sums + part * HEAD + (d % HEAD)[:, None], mask=inside, other=0.0)
        attended = tl.sum(total * share, 1) / weight
        at = row * OUTPUTS + n
        residual = tl.load(x + at, mask=n < OUTPUTS, other=0.0)
        tl.store(y + at, times(tile, attended) + bias + residual, mask=n < OUTPUTS)


@triton.jit
def norm_mlp_gelu(
    x, norm_weight, norm_bias, W, bias, y, epsilon,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Layer norm, the MLP's first matrix, and GELU in the form of GPT-2, with a hyperbolic tangent."""
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tile = load_tile(W, n, OUTPUTS, WIDTH, PADDED)
    bias = tl.load(bias + n, mask=n < OUTPUTS, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    for row in tl.static_range(ROWS):
        h = load_vector(x + row * WIDTH, WIDTH, PADDED)
        h = layer_norm(h, norm_weight, norm_bias, epsilon, WIDTH, PADDED)
        z = times(tile, h) + bias
        u = 0.7978845608028654 * (z + 0.044715 * z * z * z)  # the root of 2 / pi
        tanh = 1.0 - 2.0 / (tl.exp(2.0 * u) + 1.0)
        tl.store(y + row * OUTPUTS + n, 0.5 * z * (1.0 + tanh), mask=n < OUTPUTS)


@triton.jit
def mlp_project(
    h, W, bias, x, y,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """The MLP's second matrix, and the residual ``x``."""
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tile = load_tile(W, n, OUTPUTS, WIDTH, PADDED)
    bias = tl.load(bias + n, mask=n < OUTPUTS, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    for row in tl.static_range(ROWS):
        hidden = load_vector(h + row * WIDTH, WIDTH, PADDED)
        at = row * OUTPUTS + n
        residual = tl.load(x + at, mask=n < OUTPUTS, other=0.0)
        tl.store(y + at, times(tile, hidden) + bias + residual, mask=n < OUTPUTS)


@triton.jit
def norm_lm_head(
    x, norm_weight, norm_bias, W, best, choice, epsilon,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """The last layer norm and the output matrix: of each tile of logits the largest, and its id."""
    program = tl.program_id(0)
    n = program * TILE + tl.arange(0, TILE)
    tile = load_tile(W, n, OUTPUTS, WIDTH, PADDED)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    for row in tl.static_range(ROWS):
        h = load_vector(x + row * WIDTH, WIDTH, PADDED)
        h = layer_norm(h, norm_weight, norm_bias, epsilon, WIDTH, PADDED)
        logits = tl.where(n < OUTPUTS, times(tile, h), -float("inf"))
        largest, index = tl.max(logits, 0, return_indices=True)
        at = row * tl.num_programs(0) + program
        tl.store(best + at, largest)
        tl.store(choice + at, program * TILE + index)


@triton.jit
def next_token(
    best, choice, token_embedding, position_embedding,
    x, tokens, unread, read, finished, all_finished, ends,
    LENGTH: tl.constexpr, TILES: tl.constexpr, PADDED_TILES: tl.constexpr, ENDS: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Choose every row's token, mark the rows that end, and read the tokens in for the next step."""
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    i = tl.arange(0, PADDED_TILES)
    d = tl.arange(0, PADDED)
    position = tl.load(read) + 1
    fewest = 1
    for row in tl.static_range(ROWS):
        largest = tl.load(best + row * TILES + i, mask=i < TILES, other=-float("inf"))
        _, tile = tl.max(largest, 0, return_indices=True)
        token = tl.load(choice + row * TILES + tile).to(tl.int64)
        end = tl.load(finished + row).to(tl.int32)
        token = tl.where(end != 0, tl.load(ends), token)
        for number in tl.static_range(ENDS):
            end = tl.where(token == tl.load(ends + number), 1, end)
        fewest = tl.minimum(fewest, end)
        tl.store(finished + row, end.to(tl.uint8))
        tl.store(unread + row, token)
        tl.store(tokens + row * LENGTH + position, token)
        embedded = load_vector(token_embedding + token * WIDTH, WIDTH, PADDED)
        embedded += load_vector(position_embedding + position * WIDTH, WIDTH, PADDED)
        tl.store(x + row * WIDTH + d, embedded, mask=d < WIDTH)
    tl.store(all_finished, fewest.to(tl.uint8))
    tl.store(read, position)
