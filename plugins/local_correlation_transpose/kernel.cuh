// LocalCorrelationTranspose: out[n,c,y,x] = 1/C sum_{dy,dx} volume[n, (dy+r)(2r+1) + dx+r, y, x] query[n,c,y+dy,x+dx]
//
// A block works on one tile of pixels and some channels. Each weight of the volume is used for all of them, so
// that the volume, more than half of all bytes, is read ceil(C / channels of a block) times; beyond the first
// time it comes from L2. Borders are zeros in shared memory; nothing is padded in device memory.
//
// Numbers for radius 4, C = 32, 112x256 (level 2 of PWC-Net at 448x1024): 149 MFLOP; 16.7 MB in float, 8.3 MB
// in half.

#include "native/tile.cuh"

namespace gocor::transpose {

template <class T, int RADIUS>
struct Tiling;

// float: a thread keeps 4 neighbouring pixels of 4 channels and goes through the dy. For each dy it reads the
// weights of its pixels once, 9 reads of 16 bytes, and for each channel 3 more for 36 multiply-adds: 84 cycles of
// an SM's shared memory for a warp against 36 (128 lanes) to 72 (64 lanes) of arithmetic; by this reckoning 6 us of
// an H100 and 9 us of an A100, where the 16.7 MB take 5 and 11. The rows of the query and the weights pass through
// rings in shared memory, AHEAD steps before they are needed: the tile moves down one row with each dy.
template <int RADIUS>
struct Tiling<float, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::SIDE, Search<RADIUS>::HALO;
    static constexpr int PIXELS = 4;           // of a thread
    static constexpr int THREAD_CHANNELS = 4;  // of a thread
    static constexpr int WIDTH = 16;
    static constexpr int HEIGHT = 8;
    static constexpr int CHANNELS = 16;
    static constexpr int THREADS = WIDTH / PIXELS * HEIGHT * CHANNELS / THREAD_CHANNELS;
    static constexpr int AHEAD = 2;
    static constexpr int RING = HEIGHT + AHEAD;
    static constexpr int PITCH = WIDTH + 2 * HALO;
    // 8 neighbouring threads read 64 bytes from each of two rows: an odd multiple of 64 bytes from row to row
    // keeps them on different banks. SIDE is odd, which does the same for the weights.
    static constexpr int ROW_PITCH = CHANNELS * PITCH + 16;
    static_assert(ROW_PITCH % 32 == 16 && SIDE * WIDTH % 32 == 16, "no bank conflicts");
};

// half: tensor cores. For a row of 8 pixels and one dy, query (16 channels x 16 pixels) times a band matrix of
// the weights (16 x 8 pixels) sums over all dx; 72 of 128 products are not zero by construction. A warp takes 8
// pixels of 2 rows and 32 channels; the band matrix, 4 reads of 2 bytes a lane, serves both 16 channels, and a query
// row both rows. All that a block needs is loaded at once (38.6 kB for radius 4), with one barrier; four or five
// blocks share an SM of an A100 or H100 and cover each other's waiting. Beyond radius 4 the window is 24 pixels,
// two products, and the dy come in two groups. Zeros outside the band are multiplied, too: a query value that is not
// finite makes NaN up to 7 pixels beyond the radius, as in the function body of the ONNX model.
template <int RADIUS>
struct Tiling<half_t, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::GROUP, Search<RADIUS>::HALO, Search<RADIUS>::SIDE;
    static constexpr int WARPS = 4;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int WIDTH = 8 * WARPS;
    static constexpr int HEIGHT = RADIUS > 4 ? 1 : RADIUS > 2 ? 2 : 4;
    static constexpr int PRODUCTS = HALO / 4;  // for the window of 8 pixels
    static constexpr int CHANNELS = 32;
    static constexpr int ROWS = HEIGHT + GROUP - 1;
    static constexpr int ROWS_AT_ONCE = PRODUCTS == 1 ? ROWS : 3;  // unrolled; more would spill registers
    // Eight rows of 16 bytes each that load_matrices reads must lie on different banks: an odd multiple of 16
    // bytes from channel to channel. WEIGHT_PITCH does the same for the 2-byte reads and writes.
    static constexpr int PITCH = HALO == 4 ? 40 : 56;
    static constexpr int WEIGHT_PITCH = 40;
};

// One dy for float. `weights` and `query` are this thread's first pixel (and channel) in the rings.
template <int RADIUS>
GOCOR_DEVICE void accumulate(const float* weights, const float* query,
                             float (&sum)[Tiling<float, RADIUS>::THREAD_CHANNELS][Tiling<float, RADIUS>::PIXELS]) {
    using T = Tiling<float, RADIUS>;
    float weight[T::SIDE][T::PIXELS];
    GOCOR_UNROLL
    for (int dx = 0; dx < T::SIDE; ++dx) load_row(weight[dx], weights + dx * T::WIDTH);
    GOCOR_UNROLL
    for (int c = 0; c < T::THREAD_CHANNELS; ++c) {
        float window[T::PIXELS + 2 * T::HALO];
        load_row(window, query + c * T::PITCH);
        GOCOR_UNROLL
        for (int dx = 0; dx < T::SIDE; ++dx) {
            GOCOR_UNROLL
            for (int i = 0; i < T::PIXELS; ++i) sum[c][i] += weight[dx][i] * window[i + dx + T::HALO - RADIUS];
        }
    }
}

// Calls work(dy, weights) for each dy in turn, when its weights and query rows are there: row y of the tile needs
// the one in place (dy + y) % RING of the ring.
template <int RADIUS, class WeightLoader, class Work>
GOCOR_DEVICE void for_each_dy(const float* volume, const float* query, float* weight_ring, float* query_ring,
                              int channels, int H, int W, const Work& work) {
    using T = Tiling<float, RADIUS>;
    using RowLoader = BoxLoader<float, 1, T::CHANNELS, T::PITCH, T::PITCH, T::ROW_PITCH, 16, T::THREADS>;
    const Index3 origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const WeightLoader weight_loader(volume, H, W, origin.x, origin.y);
    // Query row i is started in round i, dy in round dy + HEIGHT - 1 with the last row that it needs; worked on
    // AHEAD rounds later.
    constexpr int ROUNDS = T::HEIGHT - 1 + T::SIDE;
    for (int round = 0; round < ROUNDS + T::AHEAD; ++round) {
        const int dy = round - T::AHEAD - (T::HEIGHT - 1);
        if (dy >= 0) {
            wait_copies<T::AHEAD - 1>();
            sync_block();
        }
        if (round < ROUNDS) {
            const RowLoader row_loader(query, H, W, origin.x - T::HALO, origin.y + round - RADIUS);
            row_loader.start(query_ring + round % T::RING * T::ROW_PITCH, query, channels);
            const int next = round - (T::HEIGHT - 1);
            if (next >= 0) {
                const int plane = next * T::SIDE;
                float* to = weight_ring + next % (T::AHEAD + 1) * WeightLoader::SIZE;
                weight_loader.start(to, volume + elements(plane, H, W), T::SIDE * T::SIDE - plane);
            }
        }
        commit_copies();
        if (dy >= 0) work(dy, weight_ring + dy % (T::AHEAD + 1) * WeightLoader::SIZE);
    }
}

template <int RADIUS>
GOCOR_DEVICE void run(const float* volume, const float* query, int C, int H, int W, float* features) {
    using T = Tiling<float, RADIUS>;
    using WeightLoader =
        BoxLoader<float, T::HEIGHT, T::SIDE, T::WIDTH, T::WIDTH, T::SIDE * T::WIDTH, 16, T::THREADS>;
    GOCOR_SHARED(float, weight_ring, (T::AHEAD + 1) * WeightLoader::SIZE);
    GOCOR_SHARED(float, query_ring, T::RING * T::ROW_PITCH);

    constexpr int ACROSS = T::WIDTH / T::PIXELS;
    const int thread = thread_index();
    const int column = thread % ACROSS * T::PIXELS, row = thread / ACROSS % T::HEIGHT;
    const int channel = thread / (ACROSS * T::HEIGHT) * T::THREAD_CHANNELS;
    const Index3 block = block_index();
    const int first_channel = block.y * T::CHANNELS;
    const long long first_plane = static_cast<long long>(block.z) * C + first_channel;
    float sum[T::THREAD_CHANNELS][T::PIXELS] = {};
    for_each_dy<RADIUS, WeightLoader>(
        volume + block.z * elements(T::SIDE * T::SIDE, H, W), query + first_plane * H * W, weight_ring,
        query_ring, C - first_channel, H, W, [&](int dy, const float* weights) {
            const float* query_row = query_ring + (dy + row) % T::RING * T::ROW_PITCH;
            accumulate<RADIUS>(weights + row * T::SIDE * T::WIDTH + column, query_row + channel * T::PITCH + column,
                               sum);
        });

    const Index3 origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const int x = origin.x + column, y = origin.y + row;
    if (y >= H) return;
    const bool aligned = W % 4 == 0 && is_aligned(features, 16);
    GOCOR_UNROLL
    for (int c = 0; c < T::THREAD_CHANNELS; ++c) {
        if (first_channel + channel + c >= C) break;
        float* to = features + ((first_plane + channel + c) * H + y) * W;
        store_pixels(to, x, W, sum[c], 1.0f / static_cast<float>(C), aligned);
    }
}

// The band matrices of 8 pixels for one dy, as they are multiplied. `weights` is dx = -RADIUS of the first pixel.
template <int RADIUS>
GOCOR_DEVICE void load_band(const half_t* weights, unsigned (&band)[Tiling<half_t, RADIUS>::PRODUCTS][2]) {
    using T = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32, to = lane / 4;
    GOCOR_UNROLL
    for (int i = 0; i < T::PRODUCTS * 2; ++i) {
        half_t pair[2];
        GOCOR_UNROLL
        for (int k = 0; k < 2; ++k) {
            const int from = i * 8 + lane % 4 * 2 + k;
            const int dx = from - to - T::HALO + RADIUS;
            pair[k] = 0 <= dx && dx < T::SIDE ? weights[dx * T::WEIGHT_PITCH + to] : half_t{};
        }
        band[i / 2][i % 2] = pack(pair[0], pair[1]);
    }
}

// The products of one group of dy. `weights` and `query` are this warp's 8 pixels in the tiles.
template <int RADIUS>
GOCOR_DEVICE void multiply(const half_t* weights, const half_t* query,
                           float (&sum)[Tiling<half_t, RADIUS>::HEIGHT][Tiling<half_t, RADIUS>::CHANNELS / 16][4]) {
    using T = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32;
    const int channel = lane / 8 % 2 * 8 + lane % 8;  // rows of the matrices
    GOCOR_UNROLL_BY(T::ROWS_AT_ONCE)
    for (int query_row = 0; query_row < T::ROWS; ++query_row) {
        unsigned window[T::CHANNELS / 16][T::PRODUCTS][4];
        GOCOR_UNROLL
        for (int m = 0; m < T::CHANNELS / 16; ++m) {
            const half_t* line = query + (query_row * T::CHANNELS + m * 16 + channel) * T::PITCH;
            load_matrices(window[m][0], line + lane / 16 * 8);
            if constexpr (T::PRODUCTS == 2) {
                unsigned third[2];
                load_matrices(third, line + 16);
                window[m][1][0] = third[0], window[m][1][1] = third[1];
                window[m][1][2] = window[m][1][3] = 0;
            }
        }
        GOCOR_UNROLL
        for (int row = 0; row < T::HEIGHT; ++row) {
            const int dy = query_row - row;
            if (dy < 0 || dy >= T::GROUP) continue;
            unsigned band[T::PRODUCTS][2];
            load_band<RADIUS>(weights + (row * T::GROUP + dy) * T::SIDE * T::WEIGHT_PITCH, band);
            GOCOR_UNROLL
            for (int m = 0; m < T::CHANNELS / 16; ++m) {
                GOCOR_UNROLL
                for (int i = 0; i < T::PRODUCTS; ++i) multiply_add(sum[row][m], window[m][i], band[i]);
            }
        }
    }
}

template <int RADIUS>
GOCOR_DEVICE void run(const half_t* volume, const half_t* query, int C, int H, int W, half_t* features) {
    using T = Tiling<half_t, RADIUS>;
    constexpr int SIDE = T::SIDE, PLANES = T::GROUP * SIDE;
    using WeightLoader =
        BoxLoader<half_t, T::HEIGHT, PLANES, T::WIDTH, T::WEIGHT_PITCH, PLANES * T::WEIGHT_PITCH, 16, T::THREADS>;
    // The box begins HALO pixels left of a multiple of 32: 8 bytes aligned up to radius 4.
    using QueryLoader = BoxLoader<half_t, T::ROWS, T::CHANNELS, T::WIDTH + 2 * T::HALO, T::PITCH,
                                  T::CHANNELS * T::PITCH, T::HALO * 2, T::THREADS>;
    GOCOR_SHARED(half_t, weight_tile, WeightLoader::SIZE);
    GOCOR_SHARED(half_t, query_tile, QueryLoader::SIZE);

    const Index3 block = block_index(), origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const int first_channel = block.y * T::CHANNELS;
    volume += block.z * elements(SIDE * SIDE, H, W);
    query += block.z * elements(C, H, W) + elements(first_channel, H, W);
    const int lane = thread_index() % 32, column = thread_index() / 32 * 8;
    const WeightLoader weight_loader(volume, H, W, origin.x, origin.y);
    float sum[T::HEIGHT][T::CHANNELS / 16][4] = {};
    GOCOR_NO_UNROLL
    for (int first_dy = 0; first_dy < SIDE; first_dy += T::GROUP) {
        weight_loader.start(weight_tile, volume + elements(first_dy * SIDE, H, W), SIDE * (SIDE - first_dy));
        const QueryLoader query_loader(query, H, W, origin.x - T::HALO, origin.y + first_dy - RADIUS);
        query_loader.start(query_tile, query, C - first_channel);
        commit_copies();
        wait_copies<0>();
        sync_block();
        multiply<RADIUS>(weight_tile + column, query_tile + column, sum);
        sync_block();
    }

    // To shared memory as lines of 32 pixels, one for each row and channel.
    constexpr int LINES = T::HEIGHT * T::CHANNELS, PITCH = 40;
    static_assert(LINES * PITCH <= QueryLoader::SIZE, "lines fit where the query was");
    half_t* lines = query_tile;
    const float scale = 1.0f / static_cast<float>(C);
    GOCOR_UNROLL
    for (int row = 0; row < T::HEIGHT; ++row) {
        GOCOR_UNROLL
        for (int i = 0; i < T::CHANNELS / 8; ++i) {
            const float* pair = sum[row][i / 2] + i % 2 * 2;
            const int line = row * T::CHANNELS + i * 8 + lane / 4;
            const int x = column + lane % 4 * 2;
            store_pair(lines + line * PITCH + x, to_half(pair[0] * scale), to_half(pair[1] * scale));
        }
    }
    sync_block();
    store_lines<LINES, T::WIDTH, PITCH, T::THREADS>(lines, features, origin.x, W, [&](int line) -> long long {
        const int y = origin.y + line / T::CHANNELS, channel = first_channel + line % T::CHANNELS;
        return y < H && channel < C ? (static_cast<long long>(block.z) * C + channel) * H + y : -1;
    });
}

}  // namespace gocor::transpose

// The entry point gocor_local_correlation_transpose_<f32|f16>_r<radius>. Grid: tiles of an image, channels, images.
#define GOCOR_LOCAL_CORRELATION_TRANSPOSE_(DTYPE, TYPE, RADIUS)                                                     \
    GOCOR_KERNEL(gocor::transpose::Tiling<TYPE, RADIUS>::THREADS)                                                   \
    gocor_local_correlation_transpose_##DTYPE##_r##RADIUS(const TYPE* volume, const TYPE* query, int, int C, int H, \
                                                          int W, TYPE* features) {                                  \
        gocor::transpose::run<RADIUS>(volume, query, C, H, W, features);                                            \
    }
#define GOCOR_LOCAL_CORRELATION_TRANSPOSE(...) GOCOR_LOCAL_CORRELATION_TRANSPOSE_(__VA_ARGS__)

#ifdef GOCOR_RADIUS
#if GOCOR_HALF
GOCOR_LOCAL_CORRELATION_TRANSPOSE(f16, gocor::half_t, GOCOR_RADIUS)
#else
GOCOR_LOCAL_CORRELATION_TRANSPOSE(f32, float, GOCOR_RADIUS)
#endif
#endif
