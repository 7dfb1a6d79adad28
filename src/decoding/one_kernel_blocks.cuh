// What the blocks of one_kernel.cu tell each other, how they wait, and what they compute with: below the model.
typedef unsigned short bf16;
typedef unsigned long long u64;

constexpr int HEAD = 64, BLOCKS = HEADS * CLUSTER, THREADS = WIDTH, WARPS = THREADS / 32;
constexpr int SHARE = WIDTH / CLUSTER;  // outputs of a projection that a block answers for
constexpr int PARTS = HEADS;            // of a block's positions: so many warps add up their values

// Bytes are announced to a barrier in shared memory; who waits there goes on when they have come.
enum Barrier { ATTENTION, FEED_FORWARD, QKV, HEAD_PARTS, UNIT_PARTS, TOTALS, BARRIERS };

struct Mailbox {  // in a block's shared memory
  float totals[WIDTH];
  union alignas(16) {  // what its threads tell each other, one after the other, with a barrier between
    float2 added[CLUSTER][SHARE / 2];  // of x, what some heads add
    float normed[WIDTH];               // x after a layer norm, in the order of slot()
    float2 weighed[PARTS][HEAD / 2];   // values, by the weights of some positions
    float2 half[WIDTH / 2];            // what half of the hidden units add to x
  } own;
  u64 barriers[BARRIERS];
  int gave_up;
};

float low(unsigned pair) { return __uint_as_float(pair << 16); }  // of two bfloat16 in a word
float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
float widened(bf16 value) { return __uint_as_float((unsigned)value << 16); }
float dot4(float4 x, float4 y) { return x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w; }
float dot8(uint4 w, float4 x, float4 y) {
  return low(w.x) * x.x + high(w.x) * x.y + low(w.y) * x.z + high(w.y) * x.w +
         low(w.z) * y.x + high(w.z) * y.y + low(w.w) * y.z + high(w.w) * y.w;
}
template <int lanes = 32> float sum_of_lanes(float v) {
#pragma unroll
  for (int o = lanes / 2; o; o /= 2) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
constexpr float LOWEST = -1e30f;
template <class T> T largest_of_lanes(T v) {
#pragma unroll
  for (int o = 16; o; o /= 2) v = max(v, __shfl_xor_sync(~0u, v, o));
  return v;
}
uint4 read_once(const uint4 *from) {  // what no cache needs to keep
  uint4 w;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w) : "l"(from));
  return w;
}

unsigned address(const void *shared) { return (unsigned)__cvta_generic_to_shared(shared); }
unsigned remote(const void *shared, int rank) {  // the same place in block `rank` of the cluster
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address(shared)), "r"(rank));
  return there;
}
u64 look(const u64 *word) {
  u64 seen;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(seen) : "l"(word) : "memory");
  return seen;
}
void tell(u64 *word, u64 value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

void let_copies_see_stores() {  // of this thread in global memory; of the block's, if all call it before a barrier
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

struct Exchange {  // a block's side of it, as one of its threads sees it
  Mailbox &box;
  volatile int *gave_up;  // in the host's memory
  u64 *words;             // [2][HEADS][WIDTH], 0 at the start; for SUMS 0: [3][WIDTH] and a count
  const int t = threadIdx.x, warp = t / 32, lane = t % 32, block = blockIdx.x;
  const int head = block / CLUSTER, rank = block % CLUSTER;
  const bool asks = t == THREADS - 32;  // the thread that announces and copies

  void begin() {
    if (!t) {
      for (u64 &barrier : box.barriers)
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(address(&barrier)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
      box.gave_up = 0;
    }
    __syncthreads();
    meet_cluster();
  }

  struct Wait {  // is told of every look in vain; ends a wait that is too long, here or elsewhere
    Exchange &here;
    unsigned looks = 0;
    long long began = 0;
    void in_vain() {
      if (++looks % 64) return;
      if (looks == 64) began = clock64();
      if (*here.gave_up || clock64() - began > PATIENCE) here.leave();
    }
  };
  // Ends the thread. Before that it stays until nothing is on its way to this block any more: no copy, and nothing
  // from a block that has not heard of it yet. A barrier of the block does not wait for threads that have ended;
  // so whoever comes out of one behind a wait, and is about to send, asks whether all are still there.
  void leave() {
    *gave_up = *(volatile int *)&box.gave_up = 1;
    for (const long long began = clock64(); clock64() - began < PATIENCE / 8;) __nanosleep(1000);
    asm volatile("exit;");
    __builtin_unreachable();
  }
  bool all_here() { return !*(volatile int *)&box.gave_up; }
  void wait_for(Barrier barrier, unsigned time) {  // `time`: how often all bytes had come before
    for (Wait wait{*this};;) {
      unsigned there;
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                   "selp.u32 %0, 1, 0, p;\n}" : "=r"(there)
                   : "r"(address(&box.barriers[barrier])), "r"(time % 2) : "memory");
      if (there) return;
      wait.in_vain();
    }
  }
  void expect(Barrier barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;"
                 ::"r"(address(&box.barriers[barrier])), "r"(bytes) : "memory");
  }
  void copy(void *to, const void *from, unsigned bytes, Barrier barrier) {  // runs by itself
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(address(to)), "l"(from), "r"(bytes), "r"(address(&box.barriers[barrier])) : "memory");
  }

  // Within a cluster: two values into the other block's shared memory, whose barrier counts their bytes.
  void send(float2 *to, float2 pair, Barrier barrier, int receiver) {
    const u64 bits = (u64)__float_as_uint(pair.y) << 32 | __float_as_uint(pair.x);
#if SENDS
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];"
                 ::"r"(remote(to, receiver)), "l"(bits), "r"(remote(&box.barriers[barrier], receiver)) : "memory");
#else
    asm volatile("st.shared::cluster.b64 [%0], %1;" ::"r"(remote(to, receiver)), "l"(bits) : "memory");
#endif
  }
  void expect_sent(Barrier barrier, unsigned bytes) { if (SENDS && asks) expect(barrier, bytes); }
  void wait_for_sent(Barrier barrier, unsigned time) {
    if (SENDS) wait_for(barrier, time);
    else meet_cluster();
  }

  // To all blocks: what this head adds to x[e] in the exchange with this number, from 1 on. The value and the
  // number are one word: whoever reads the right number has the value, and needs no barrier. There are two
  // sets of words: nobody writes exchange n + 2 before all have read exchange n, since they told of n + 1.
  void publish(unsigned number, int e, float value) {
#if SUMS == 0  // in fixed point: the same sum in any order
    atomicAdd(words + number % 3 * WIDTH + e, (u64)__float2ll_rn(value * 0x1p32f));
#else
    if (FAULT && number == 5 && block == BLOCKS - 1 && e == WIDTH - 1) return;
    tell(words + (number % 2 * HEADS + head) * WIDTH + e, (u64)__float_as_uint(value) << 32 | number);
#endif
  }
  // What `heads` heads, `most` at most, tell in their words of this exchange, which stand so far apart.
  template <int most> float sum_of(const u64 *word, int apart, int heads, unsigned number) {
    u64 seen[most] = {};
    for (Wait wait{*this};; wait.in_vain()) {
      bool late = false;
#pragma unroll
      for (int i = 0; i < most; i++)
        if (i < heads && (unsigned)seen[i] != number) seen[i] = look(word + i * apart);
#pragma unroll
      for (int i = 0; i < most; i++) late |= i < heads && (unsigned)seen[i] != number;
      if (!late) break;
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < most; i++) sum += __uint_as_float(seen[i] >> 32);
    return sum;
  }
  float collect(unsigned number) {  // what all heads add to x[t]
#if SUMS == 0
    u64 *arrived = words + 3 * WIDTH;
    if (!t) {
      asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrived) : "memory");
      for (Wait wait{*this}; look(arrived) < (u64)number * BLOCKS;) wait.in_vain();
      __threadfence();
    }
    __syncthreads();
    if (!block) tell(words + (number + 2) % 3 * WIDTH + t, 0);  // all have read the sums before these
    return (float)(long long)look(words + number % 3 * WIDTH + t) * 0x1p-32f;
#elif SUMS == 1
    return sum_of<HEADS>(words + number % 2 * HEADS * WIDTH + t, WIDTH, HEADS, number);
#else
    const int e = t % SHARE, first = t / SHARE;  // adds the heads `first`, `first` + CLUSTER, ...
    const u64 *word = words + (number % 2 * HEADS + first) * WIDTH + rank * SHARE + e;
    constexpr int most = (HEADS + CLUSTER - 1) / CLUSTER;
    expect_sent(TOTALS, sizeof box.totals);
    ((float *)box.own.added)[t] = sum_of<most>(word, CLUSTER * WIDTH, (HEADS - first + CLUSTER - 1) / CLUSTER, number);
    __syncthreads();
    const bool complete = all_here();
    if (t < WIDTH / 2) {
      const int pair = t % (SHARE / 2);
      float2 total = {0, 0};
#pragma unroll
      for (int i = 0; i < CLUSTER; i++) total.x += box.own.added[i][pair].x, total.y += box.own.added[i][pair].y;
      if (!complete) leave();
      send((float2 *)box.totals + rank * SHARE / 2 + pair, total, TOTALS, t / (SHARE / 2));
    }
    wait_for_sent(TOTALS, number - 1);
    return box.totals[t];
#endif
  }
};
