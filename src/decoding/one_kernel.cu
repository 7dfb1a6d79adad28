// GPT-2's greedy decoding loop in one kernel: batch 1, bfloat16 weights; all else is float32, keys and values too.
//
// Who holds what, in GPT-2 small (12 heads, 12 clusters of 8 blocks of 768 threads; one cluster is drawn):
//
//   cluster = a head     block 0        block 1            block 7
//   q, k and v           rows 0-7       rows 8-15     ...  rows 56-63    of the head's 64 each
//   keys, values         0, 8, 16, ...  1, 9, 17, ... ...  7, 15, ...    positions, of this head and layer
//   projection           outputs 0-95   96-191        ...  672-767       from the head's 64 values
//   feed-forward         32 of the 3072 hidden units a block, with all inputs and all outputs
//   lm_head              a row of the vocabulary at a time for each warp
//   x, the residual      all of it in every block: thread t has x[t]
//
// What goes from block to block, in a layer:
//
//   x > layer norm > qkv ~~> attention ~~> projection ==> x > layer norm > feed-forward ~~> ==> x
//   ~~>  within a cluster: written straight into the other block's shared memory
//   ==>  between all blocks, through L2: what each head adds to x
//
// The weights of a phase are on their way to shared memory while the phase before it computes.
// No wait lasts for ever: after PATIENCE a block gives up, tells the host and leaves, and so do all.
//
// Compiled by one_kernel.py, which defines the model's sizes, EPSILON, SHARED_BYTES and these variants:
//   SUMS   0: atomic sums and a barrier of the grid; 1: numbered words, each block adds all of them up;
//          2: the same, each block of a cluster adds up a share
//   SENDS  0: stores to the cluster and a barrier of the cluster; 1: stores that the receiver counts
//   AHEAD  0: weights are asked for when they are needed; 1: a phase ahead
//   FAULT  1: one block keeps a word to itself, for a test; PROFILE 1: cycles of each phase
#include "one_kernel_blocks.cuh"

constexpr int ROWS = HEAD / CLUSTER;       // of q, of k and of v in a block
constexpr int UNITS = 4 * HEAD / CLUSTER;  // hidden units in a block
constexpr int SLOTS = (POSITIONS + CLUSTER - 1) / CLUSTER;
static_assert(WIDTH == HEADS * HEAD && WIDTH % 256 == 0 && ROWS % 2 == 0 && SHARE % 2 == 0, "layout");
static_assert(VOCABULARY <= 1 << 20 && POSITIONS < 1 << 12, "a logit, its token and position fill a word");

struct Attention { bf16 qkv[3 * ROWS][WIDTH], out[SHARE][HEAD]; float qkv_bias[3 * ROWS], out_bias[SHARE]; };
struct FeedForward { bf16 in[UNITS][WIDTH], out[UNITS][WIDTH]; float in_bias[UNITS], out_bias[SHARE]; };
struct Norm { bf16 weight[WIDTH], bias[WIDTH]; };

enum Phase {
  EMBED, UNIT_SUMS, ATTENTION_WEIGHTS, NORM_1, QKV_ROWS, QKV_SENT, ATTEND, HEADS_SENT, PROJECT, HEAD_SUMS,
  FEED_FORWARD_WEIGHTS, NORM_2, UNITS_IN, UNITS_OUT, LAST_SUMS, NORM_F, LOGITS, NEXT_TOKEN, PHASES
};

struct alignas(128) State {  // what a block has in shared memory
  Attention attention;
  FeedForward feed_forward;
  float cache[2][SLOTS][HEAD];  // keys and values
  Norm norms[2];
  float qkv[3][HEAD], attended[HEAD], hidden[UNITS];
  union {  // nobody sends units before all have read the head, nor the next head before all have read the units
    struct { float2 values[CLUSTER][HEAD / 2], softmax[CLUSTER]; } head;
    float2 units[CLUSTER][SHARE / 2];
  };
  float2 moments[WARPS];
  u64 best[WARPS];
  Mailbox box;
  float scores[SLOTS];
  int token;
};
static_assert(sizeof(State) == SHARED_BYTES, "one_kernel.py counts otherwise");

// Where element e of a vector stands, so that a warp reads it, 8 elements a lane, without bank conflicts.
int slot(int e) { return ((e / 256 * 2 + e % 8 / 4) * 32 + e / 8 % 32) * 4 + e % 4; }
// A logit, its token and position in one word: the larger word is the larger logit, or the smaller token.
constexpr u64 TOKENS = (1 << 20) - 1;
u64 choice(float logit, int token, u64 position) {
  const unsigned bits = __float_as_uint(logit + 0.f), ordered = bits >> 31 ? ~bits : bits | 1u << 31;
  return (u64)ordered << 32 | (TOKENS - token) << 12 | position;
}

struct Block : Exchange {  // a block, as one of its threads sees it
  State &s;

  int positions_here(int positions) { return (positions - rank + CLUSTER - 1) / CLUSTER; }
  void ask_for_attention(const Attention *weights, const Norm *norm, const float *cache, int positions) {
    const unsigned kept = positions_here(positions) * sizeof s.cache[0][0];
    if (!asks) return;
    expect(ATTENTION, sizeof s.attention + sizeof s.norms[0] + 2 * kept);
    copy(&s.norms[0], norm, sizeof *norm, ATTENTION);
    copy(&s.attention, weights + block, sizeof *weights, ATTENTION);
    if (kept) copy(s.cache[0], cache, kept, ATTENTION), copy(s.cache[1], cache + SLOTS * HEAD, kept, ATTENTION);
  }
  void ask_for_feed_forward(const FeedForward *weights, const Norm *norm) {
    if (!asks) return;
    expect(FEED_FORWARD, sizeof s.feed_forward + sizeof s.norms[1]);
    copy(&s.norms[1], norm, sizeof *norm, FEED_FORWARD);
    copy(&s.feed_forward, weights + block, sizeof *weights, FEED_FORWARD);
  }

  void layer_norm(float x, float weight, float bias) {
    float2 moments = {sum_of_lanes(x), sum_of_lanes(x * x)};
    if (!lane) s.moments[warp] = moments;
    __syncthreads();
    const bool complete = all_here();
    moments = lane < WARPS ? s.moments[lane] : float2{0, 0};
    const float mean = sum_of_lanes(moments.x) / WIDTH;
    const float variance = sum_of_lanes(moments.y) / WIDTH - mean * mean;
    box.own.normed[slot(t)] = (x - mean) * rsqrtf(variance + EPSILON) * weight + bias;
    if (!complete) leave();
    __syncthreads();
  }

  float2 two_rows(const bf16 (*rows)[WIDTH]) {  // times the normed x, by a warp
    float2 sum = {0, 0};
#pragma unroll
    for (int j = 0; j < WIDTH / 256; j++) {
      const float4 *x = (const float4 *)box.own.normed + 64 * j + lane;
      sum.x += dot8(((const uint4 *)rows[0])[32 * j + lane], x[0], x[32]);
      sum.y += dot8(((const uint4 *)rows[1])[32 * j + lane], x[0], x[32]);
    }
    return {sum_of_lanes(sum.x), sum_of_lanes(sum.y)};
  }

  void qkv() {
    for (int row = 2 * warp; row < 3 * ROWS; row += 2 * WARPS) {
      const int which = row / ROWS, e = rank * ROWS + row % ROWS;
      const float2 bias = *(const float2 *)&s.attention.qkv_bias[row];
      float2 sum = two_rows(&s.attention.qkv[row]);
      sum.x += bias.x, sum.y += bias.y;
      if (!which) sum.x *= 0.125f, sum.y *= 0.125f;  // q / sqrt(HEAD)
      if (lane < CLUSTER) send((float2 *)&s.qkv[which][e], sum, QKV, lane);
    }
  }

  void attention(float *cache, int position) {  // over this block's positions; the newest one's are in s.qkv
    const int old = positions_here(position), mine = positions_here(position + 1);
    const float4 *query = (const float4 *)s.qkv[0] + lane % 8;
    for (int i = t / 8; i < (mine + 3) / 4 * 4; i += THREADS / 8) {  // 8 lanes a position, whole warps
      const float4 *keys = (const float4 *)(i < old ? s.cache[0][i] : s.qkv[1]) + lane % 8;
      const float score = sum_of_lanes<8>(dot4(keys[0], query[0]) + dot4(keys[8], query[8]));
      if (lane % 8 == 0 && i < mine) s.scores[i] = score;
    }
    __syncthreads();
    float largest = LOWEST, total = 0;
#pragma unroll
    for (int i = lane; i < SLOTS; i += 32) if (i < mine) largest = max(largest, s.scores[i]);
    largest = largest_of_lanes(largest);
#pragma unroll
    for (int i = lane; i < SLOTS; i += 32) if (i < mine) total += __expf(s.scores[i] - largest);
    total = sum_of_lanes(total);
    float2 sum = {0, 0};
    for (int i = warp; warp < PARTS && i < mine; i += PARTS) {
      const float weight = __expf(s.scores[i] - largest);
      const float2 values = ((const float2 *)(i < old ? s.cache[1][i] : s.qkv[2]))[lane];
      sum.x += weight * values.x, sum.y += weight * values.y;
    }
    float2(&weighed)[PARTS][HEAD / 2] = box.own.weighed;
    if (warp < PARTS) weighed[warp][lane] = sum;
    __syncthreads();
    const bool complete = all_here();
    for (int receiver = warp; receiver < CLUSTER; receiver += WARPS) {
      sum = {0, 0};
#pragma unroll
      for (int part = 0; part < PARTS; part++) sum.x += weighed[part][lane].x, sum.y += weighed[part][lane].y;
      if (!complete) leave();
      send(&s.head.values[rank][lane], sum, HEAD_PARTS, receiver);
      if (!lane) send(&s.head.softmax[rank], {largest, total}, HEAD_PARTS, receiver);
    }
    if (old < mine && warp < 2)
      ((float2 *)cache)[(warp * SLOTS + old) * HEAD / 2 + lane] = ((const float2 *)s.qkv[1 + warp])[lane];
  }

  void projection(unsigned number) {  // of the head's values, put together from the cluster's parts
    if (t < HEAD) {
      float largest = LOWEST, sum = 0, total = 0;
      for (int i = 0; i < CLUSTER; i++) largest = max(largest, s.head.softmax[i].x);
      for (int i = 0; i < CLUSTER; i++) {
        const float weight = __expf(s.head.softmax[i].x - largest);
        sum += weight * ((const float *)s.head.values[i])[t], total += weight * s.head.softmax[i].y;
      }
      s.attended[t] = sum / total;
    }
    __syncthreads();
    const float4 *attended = (const float4 *)s.attended + lane % 8 * 2;
    for (int row = t / 8; row < SHARE; row += THREADS / 8) {  // 8 lanes a row
      const uint4 weights = ((const uint4 *)s.attention.out[row])[lane % 8];
      const float sum = sum_of_lanes<8>(dot8(weights, attended[0], attended[1]));
      if (lane % 8 == 0) publish(number, rank * SHARE + row, sum + s.attention.out_bias[row]);
    }
  }

  void feed_forward_in() {
    for (int unit = 2 * warp; unit < UNITS; unit += 2 * WARPS) {
      const float2 sum = two_rows(&s.feed_forward.in[unit]);
      if (lane < 2) {
        const float x = (lane ? sum.y : sum.x) + s.feed_forward.in_bias[unit + lane];
        const float z = 0.7978845608028654f * (x + 0.044715f * x * x * x);  // GELU; tanh(z) by exp(2z)
        s.hidden[unit + lane] = 0.5f * x * (2 - 2 / (__expf(2 * z) + 1));
      }
    }
    __syncthreads();
  }

  void feed_forward_out(unsigned number, unsigned time) {  // two outputs a thread, of half of the units
    const int pair = t % (WIDTH / 2), first = t / (WIDTH / 2) * UNITS / 2;
    float2 sum = {0, 0};
#pragma unroll
    for (int unit = 0; unit < UNITS / 2; unit++) {
      const unsigned weights = ((const unsigned *)s.feed_forward.out[first + unit])[pair];
      const float hidden = s.hidden[first + unit];
      sum.x += low(weights) * hidden, sum.y += high(weights) * hidden;
    }
    float2 *half = box.own.half;
    if (first) half[pair] = sum;
    __syncthreads();
    if (!first) {
      sum.x += half[pair].x, sum.y += half[pair].y;
      send(&s.units[rank][pair % (SHARE / 2)], sum, UNIT_PARTS, pair / (SHARE / 2));
    }
    if (t < SHARE || !SENDS) wait_for_sent(UNIT_PARTS, time);
    if (t < SHARE) {
      float total = s.feed_forward.out_bias[t];
#pragma unroll
      for (int i = 0; i < CLUSTER; i++) total += ((const float *)s.units[i])[t];
      publish(number, rank * SHARE + t, total);
    }
  }

  struct Rows { uint4 weights[WIDTH / 256]; };  // a lane's part of a row of lm_head
  Rows row_of(const bf16 *lm_head, int row) {
    Rows r = {};
#pragma unroll
    for (int j = 0; j < WIDTH / 256; j++)
      if (row < VOCABULARY) r.weights[j] = read_once((const uint4 *)(lm_head + (size_t)row * WIDTH) + 32 * j + lane);
    return r;
  }
  u64 logits(const bf16 *lm_head, Rows first, Rows second, u64 position) {  // the best of this warp's rows
    u64 best = position;  // less than any choice, for a warp without a row
    for (int row = block * WARPS + warp; row < VOCABULARY; row += 2 * BLOCKS * WARPS) {
      float sum[2] = {0, 0};
#pragma unroll
      for (int j = 0; j < WIDTH / 256; j++) {
        const float4 *x = (const float4 *)box.own.normed + 64 * j + lane;
        sum[0] += dot8(first.weights[j], x[0], x[32]);
        sum[1] += dot8(second.weights[j], x[0], x[32]);
      }
      first = row_of(lm_head, row + 2 * BLOCKS * WARPS), second = row_of(lm_head, row + 3 * BLOCKS * WARPS);
      best = max(best, choice(sum_of_lanes(sum[0]), row, position));
      const float other = sum_of_lanes(sum[1]);
      if (row + BLOCKS * WARPS < VOCABULARY) best = max(best, choice(other, row + BLOCKS * WARPS, position));
    }
    return best;
  }
  int next_token(u64 best, u64 *choices, u64 position) {  // of the warps', then of the blocks' choices
    if (!lane) s.best[warp] = best;
    __syncthreads();
    if (!all_here()) leave();  // so a token never rests on a wait that was given up: it needs a word of every block
    if (!warp) {
      best = largest_of_lanes(lane < WARPS ? s.best[lane] : 0);
      if (!lane) tell(choices + block, best);
      for (int i = lane; i < BLOCKS; i += 32) {
        u64 seen = look(choices + i);
        for (Wait wait{*this}; (seen & 0xfff) != position; seen = look(choices + i)) wait.in_vain();
        best = max(best, seen);
      }
      best = largest_of_lanes(best);
      if (!lane) s.token = TOKENS - (best >> 12 & TOKENS);
    }
    __syncthreads();
    if (!all_here()) leave();
    return s.token;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS) one_kernel(
    const Attention *attentions, const FeedForward *feed_forwards, const Norm *norms,  // by layer (and block)
    const bf16 *wte, const bf16 *wpe, const bf16 *lm_head,  // [VOCABULARY], [POSITIONS], [VOCABULARY][WIDTH]
    float *caches, u64 *words, u64 *choices,  // [LAYERS][HEADS][CLUSTER][2][SLOTS][HEAD]; choices: [2][BLOCKS], 0
    long long *tokens, u64 position, u64 last,  // the prompt and one token more; where that is; the last wanted
    const long long *ends, u64 number_of_ends,
    volatile long long *told, volatile int *gave_up,  // in the host's memory: the tokens as they come
    long long *cycles)  // [BLOCKS][PHASES], for PROFILE
{
  alignas(128) extern __shared__ unsigned char shared[];
  State &s = *(State *)shared;
  Block b{{s.box, gave_up, words}, s};
  const int t = b.t;
  long long then = PROFILE ? clock64() : 0;
  auto end_of = [&](Phase phase) {
    if (!PROFILE || t) return;
    const long long now = clock64();
    cycles[b.block * PHASES + phase] += now - then, then = now;
  };
  auto cache_of = [&](int layer) { return caches + (layer * BLOCKS + b.block) * 2 * SLOTS * HEAD; };
  auto ask_for_attention = [&](int layer, int positions) {
    b.ask_for_attention(attentions + layer * BLOCKS, norms + 2 * layer, cache_of(layer), positions);
  };
  auto ask_for_feed_forward = [&](int layer) {
    b.ask_for_feed_forward(feed_forwards + layer * BLOCKS, norms + 2 * layer + 1);
  };
  auto goes_on = [&](int token) {
    if (!b.block && !t) told[position] = tokens[position] = token;
    bool ended = position == last;
    for (int i = 0; i < number_of_ends; i++) ended |= token == ends[i];
    return !ended;
  };

  b.begin();
  int token = tokens[position];
  unsigned turn = 0;  // layers so far: the exchanges after it have the numbers 2 turn + 1 and 2 turn + 2
  bool asked = false;
  while (goes_on(token)) {
    if (AHEAD && !asked) ask_for_attention(0, position), ask_for_feed_forward(0), asked = true;
    float x = widened(wte[(size_t)token * WIDTH + t]) + widened(wpe[position * WIDTH + t]);
    const bool more = position + 1 < last;
    end_of(EMBED);
    for (int layer = 0; layer < LAYERS; layer++, turn++) {
      if (layer) x += b.collect(2 * turn);
      end_of(UNIT_SUMS);
      if (!AHEAD) ask_for_attention(layer, position);
      b.wait_for(ATTENTION, turn), end_of(ATTENTION_WEIGHTS);
      b.layer_norm(x, widened(s.norms[0].weight[t]), widened(s.norms[0].bias[t])), end_of(NORM_1);
      b.expect_sent(QKV, sizeof s.qkv);
      b.expect_sent(HEAD_PARTS, sizeof s.head);
      b.expect_sent(UNIT_PARTS, sizeof s.units);
      b.qkv(), end_of(QKV_ROWS);
      b.wait_for_sent(QKV, turn), end_of(QKV_SENT);
      b.attention(cache_of(layer), position), end_of(ATTEND);
      b.wait_for_sent(HEAD_PARTS, turn), end_of(HEADS_SENT);
      if (layer + 1 == LAYERS) let_copies_see_stores();  // the token's keys and values, of all layers
      b.projection(2 * turn + 1);
      __syncthreads();
      if (AHEAD && layer + 1 < LAYERS) ask_for_attention(layer + 1, position);
      else if (AHEAD && more) ask_for_attention(0, position + 1);
      end_of(PROJECT);
      x += b.collect(2 * turn + 1), end_of(HEAD_SUMS);
      if (!AHEAD) ask_for_feed_forward(layer);
      b.wait_for(FEED_FORWARD, turn), end_of(FEED_FORWARD_WEIGHTS);
      b.layer_norm(x, widened(s.norms[1].weight[t]), widened(s.norms[1].bias[t])), end_of(NORM_2);
      b.feed_forward_in(), end_of(UNITS_IN);
      b.feed_forward_out(2 * turn + 2, turn);
      __syncthreads();
      if (AHEAD && (layer + 1 < LAYERS || more)) ask_for_feed_forward((layer + 1) % LAYERS);
      end_of(UNITS_OUT);
    }
    const float weight = widened(norms[2 * LAYERS].weight[t]), bias = widened(norms[2 * LAYERS].bias[t]);
    const int row = b.block * WARPS + b.warp;
    const Block::Rows first = b.row_of(lm_head, row), second = b.row_of(lm_head, row + BLOCKS * WARPS);
    x += b.collect(2 * turn), end_of(LAST_SUMS);
    b.layer_norm(x, weight, bias), end_of(NORM_F);
    position++;
    const u64 best = b.logits(lm_head, first, second, position);
    end_of(LOGITS);
    token = b.next_token(best, choices + position % 2 * BLOCKS, position), end_of(NEXT_TOKEN);
  }
  if (asked && position < last) b.wait_for(ATTENTION, turn), b.wait_for(FEED_FORWARD, turn);  // still on their way
  meet_cluster();  // nobody leaves while others may write to it
}
