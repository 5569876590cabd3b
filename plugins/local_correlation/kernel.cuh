// LocalCorrelation: out[n, (dy+r)(2r+1) + dx+r, y, x] = 1/C sum_c reference[n,c,y,x] query[n,c,y+dy,x+dx]
//
// A block works on one tile of pixels and one group of dy (all of them up to radius 4). It goes through the
// channels in chunks: the reference tile and the query pixels around it are copied to one of two buffers in
// shared memory while the other is worked on. Borders are zeros there; nothing is padded in device memory.
//
// Numbers for radius 4, C = 32, 112x256 (level 2 of PWC-Net at 448x1024): 149 MFLOP; 16.7 MB in float, 8.3 MB
// in half, of which the volume is more than half.

#include "native/tile.cuh"

namespace gocor::correlation {

template <class T, int RADIUS>
struct Tiling;

// float: a thread keeps 4 neighbouring pixels by all dx of one dy. For each channel it reads 4 reference and
// 12 query values, 4 reads of 16 bytes, for 36 multiply-adds: for a warp 16 cycles of an SM's shared memory against
// 9 (128 lanes) to 18 (64 lanes) of arithmetic. All 2.07 million of these steps are, by this reckoning, 5 us of an
// H100 and 8 us of an A100, where the 16.7 MB take 5 and 11. With 8 pixels a thread it would be 12 cycles
// instead of 16, but half as many blocks: level 3 would have 76 of them for 132 SMs.
template <int RADIUS>
struct Tiling<float, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::GROUP, Search<RADIUS>::HALO, Search<RADIUS>::SIDE;
    static constexpr int PIXELS = 4;  // of a thread
    static constexpr int WIDTH = 16;
    static constexpr int HEIGHT = 32 / GROUP;
    static constexpr int THREADS = WIDTH / PIXELS * HEIGHT * GROUP;  // 108 for radius 4, never more than 128
    static constexpr int CHANNELS = 8;                               // of a chunk
    static constexpr int ROWS = HEIGHT + GROUP - 1;
    static constexpr int PITCH = WIDTH + 2 * HALO;
    // 8 neighbouring threads read 64 bytes from each of two rows: an odd multiple of 64 bytes from row to row
    // keeps them on different banks.
    static constexpr int ROW_PITCH = CHANNELS * PITCH + 16;
    static constexpr int REFERENCE_ROW_PITCH = CHANNELS * WIDTH + 16;
    static_assert(ROW_PITCH % 32 == 16 && REFERENCE_ROW_PITCH % 32 == 16, "no bank conflicts");
};

// half: tensor cores. For a row of 8 pixels and one dy, query (16 pixels x 16 channels) times reference (16
// channels x 8 pixels) holds all dx: 72 of 128 products are used, which tensor cores more than make up for
// (64,512 products of 4096 FLOP are 1,200 cycles of an A100). A warp takes 8 pixels of 2 rows and all 9 dy,
// 72 accumulators, so that each query row is read once for both rows. Beyond radius 4 the window is 24 pixels,
// two products.
template <int RADIUS>
struct Tiling<half_t, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::GROUP, Search<RADIUS>::HALO, Search<RADIUS>::SIDE;
    static constexpr int WARPS = 4;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int WIDTH = 8 * WARPS;
    static constexpr int HEIGHT = RADIUS == 1 ? 4 : RADIUS <= 4 ? 2 : 1;
    static constexpr int PRODUCTS = HALO / 4;  // for the window of 8 pixels
    static constexpr int CHANNELS = 16;        // of a chunk
    static constexpr int ROWS = HEIGHT + GROUP - 1;
    // Eight rows of 16 bytes each that load_matrices reads must lie on different banks: an odd multiple of 16
    // bytes from channel to channel.
    static constexpr int PITCH = HALO == 4 ? 40 : 56;
    static constexpr int REFERENCE_PITCH = 40;
};

// Calls work(reference tile, query tile) for each chunk of channels, zeros beyond the last channel. The tiles of
// the next chunk are under way meanwhile. `reference` and `query` are those of the block's image.
template <int RADIUS, class ReferenceLoader, class QueryLoader, class T, class Work>
GOCOR_DEVICE void for_each_chunk(const T* reference, const T* query, T* reference_tiles, T* query_tiles, int C, int H,
                                 int W, const Work& work) {
    using Tile = Tiling<T, RADIUS>;
    constexpr int CHANNELS = Tile::CHANNELS;
    const Index3 origin = tile_origin<Tile::WIDTH, Tile::HEIGHT>(W);
    const int first_row = origin.y + block_index().y * Tile::GROUP - RADIUS;
    const ReferenceLoader reference_loader(reference, H, W, origin.x, origin.y);
    const QueryLoader query_loader(query, H, W, origin.x - Tile::HALO, first_row);
    for (int chunk = -2; chunk * CHANNELS < C; ++chunk) {  // the first two rounds only start copies
        const bool odd = chunk % 2 != 0;
        T* reference_tile = reference_tiles + (odd ? ReferenceLoader::SIZE : 0);
        T* query_tile = query_tiles + (odd ? QueryLoader::SIZE : 0);
        if (chunk >= 0) {
            wait_copies<1>();
            sync_block();
            work(reference_tile, query_tile);
            sync_block();
        }
        const int next = (chunk + 2) * CHANNELS;
        if (next < C) {
            reference_loader.start(reference_tile, reference + elements(next, H, W), C - next);
            query_loader.start(query_tile, query + elements(next, H, W), C - next);
        }
        commit_copies();
    }
}

// One chunk for float. `reference` and `query` are this thread's first pixel in the tiles.
template <int RADIUS>
GOCOR_DEVICE void accumulate(const float* reference, const float* query,
                             float (&sum)[Search<RADIUS>::SIDE][Tiling<float, RADIUS>::PIXELS]) {
    using T = Tiling<float, RADIUS>;
    GOCOR_UNROLL_BY(T::HALO == 4 ? 4 : 1)  // more would spill registers
    for (int c = 0; c < T::CHANNELS; ++c) {
        float pixels[T::PIXELS], window[T::PIXELS + 2 * T::HALO];
        load_row(pixels, reference + c * T::WIDTH);
        load_row(window, query + c * T::PITCH);
        GOCOR_UNROLL
        for (int dx = 0; dx < T::SIDE; ++dx) {
            GOCOR_UNROLL
            for (int i = 0; i < T::PIXELS; ++i) sum[dx][i] += pixels[i] * window[i + dx + T::HALO - RADIUS];
        }
    }
}

template <int RADIUS>
GOCOR_DEVICE void run(const float* reference, const float* query, int C, int H, int W, float* volume) {
    using T = Tiling<float, RADIUS>;
    using ReferenceLoader =
        BoxLoader<float, T::HEIGHT, T::CHANNELS, T::WIDTH, T::WIDTH, T::REFERENCE_ROW_PITCH, 16, T::THREADS>;
    using QueryLoader = BoxLoader<float, T::ROWS, T::CHANNELS, T::PITCH, T::PITCH, T::ROW_PITCH, 16, T::THREADS>;
    GOCOR_SHARED(float, reference_tiles, 2 * ReferenceLoader::SIZE);
    GOCOR_SHARED(float, query_tiles, 2 * QueryLoader::SIZE);

    constexpr int ACROSS = T::WIDTH / T::PIXELS;
    const int thread = thread_index();
    const int column = thread % ACROSS * T::PIXELS, row = thread / ACROSS % T::HEIGHT;
    const int dy = thread / (ACROSS * T::HEIGHT);
    const Index3 block = block_index();
    const long long image = block.z * elements(C, H, W);
    float sum[T::SIDE][T::PIXELS] = {};
    for_each_chunk<RADIUS, ReferenceLoader, QueryLoader>(
        reference + image, query + image, reference_tiles, query_tiles, C, H, W,
        [&](const float* reference_tile, const float* query_tile) {
            accumulate<RADIUS>(reference_tile + row * T::REFERENCE_ROW_PITCH + column,
                               query_tile + (row + dy) * T::ROW_PITCH + column, sum);
        });

    const Index3 origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const int x = origin.x + column, y = origin.y + row, displacement = (block.y * T::GROUP + dy) * T::SIDE;
    if (displacement >= T::SIDE * T::SIDE || y >= H) return;
    float* to = volume + ((static_cast<long long>(block.z) * T::SIDE * T::SIDE + displacement) * H + y) * W;
    const bool aligned = W % 4 == 0 && is_aligned(volume, 16);
    GOCOR_UNROLL
    for (int dx = 0; dx < T::SIDE; ++dx, to += elements(1, H, W)) {
        store_pixels(to, x, W, sum[dx], 1.0f / static_cast<float>(C), aligned);
    }
}

// The products of one chunk of channels. `query` and `reference` are this warp's 8 pixels in the tiles.
template <int RADIUS>
GOCOR_DEVICE void multiply(const half_t* reference, const half_t* query,
                           float (&sum)[Tiling<half_t, RADIUS>::HEIGHT][Tiling<half_t, RADIUS>::GROUP]
                                       [Tiling<half_t, RADIUS>::PRODUCTS][4]) {
    using T = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32;
    // Rows of the matrices are channels. Reference: matrices are channels 0-7, 8-15. Query: the same, each with
    // pixels 0-7 and 8-15; a third block of 8 pixels is loaded like the reference.
    const int channel = lane / 8 % 2 * 8 + lane % 8;
    unsigned pixels[T::HEIGHT][2];
    GOCOR_UNROLL
    for (int row = 0; row < T::HEIGHT; ++row) {
        const int line = row * T::CHANNELS + channel;
        load_matrices_transposed(pixels[row], reference + line * T::REFERENCE_PITCH);
    }
    GOCOR_UNROLL
    for (int query_row = 0; query_row < T::ROWS; ++query_row) {
        const half_t* line = query + query_row * T::CHANNELS * T::PITCH;
        unsigned window[T::PRODUCTS][4];
        load_matrices_transposed(window[0], line + (lane / 16 * 8 + lane % 8) * T::PITCH + lane / 8 % 2 * 8);
        if constexpr (T::PRODUCTS == 2) {
            unsigned third[2];
            load_matrices_transposed(third, line + channel * T::PITCH + 16);
            window[1][0] = third[0], window[1][2] = third[1];
            window[1][1] = window[1][3] = 0;
        }
        GOCOR_UNROLL
        for (int row = 0; row < T::HEIGHT; ++row) {
            const int dy = query_row - row;
            if (dy < 0 || dy >= T::GROUP) continue;
            GOCOR_UNROLL
            for (int i = 0; i < T::PRODUCTS; ++i) multiply_add(sum[row][dy][i], window[i], pixels[row]);
        }
    }
}

// The band of the products goes to shared memory as lines of the tile's width, one for each row, dy and dx. The
// pitch makes these 2-byte stores hit different banks. `lines` is this warp's 8 pixels.
template <int RADIUS, int PITCH>
GOCOR_DEVICE void keep_band(half_t* lines, float scale,
                            const float (&sum)[Tiling<half_t, RADIUS>::HEIGHT][Tiling<half_t, RADIUS>::GROUP]
                                              [Tiling<half_t, RADIUS>::PRODUCTS][4]) {
    using T = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32;
    GOCOR_UNROLL
    for (int line = 0; line < T::HEIGHT * T::GROUP; ++line) {
        GOCOR_UNROLL
        for (int i = 0; i < (8 + 2 * T::HALO) / 8 * 2; ++i) {  // blocks of 8 query pixels, 2 values a lane
            const int from = i / 2 * 8 + lane / 4, to = lane % 4 * 2 + i % 2;
            const int dx = from - to - T::HALO + RADIUS;
            if (0 <= dx && dx < T::SIDE) {
                const float product = sum[line / T::GROUP][line % T::GROUP][i / 4][i % 4];
                lines[(line * T::SIDE + dx) * PITCH + to] = to_half(product * scale);
            }
        }
    }
}

template <int RADIUS>
GOCOR_DEVICE void run(const half_t* reference, const half_t* query, int C, int H, int W, half_t* volume) {
    using T = Tiling<half_t, RADIUS>;
    using ReferenceLoader = BoxLoader<half_t, T::HEIGHT, T::CHANNELS, T::WIDTH, T::REFERENCE_PITCH,
                                      T::CHANNELS * T::REFERENCE_PITCH, 16, T::THREADS>;
    // The box begins HALO pixels left of a multiple of 32: 8 bytes aligned up to radius 4.
    using QueryLoader = BoxLoader<half_t, T::ROWS, T::CHANNELS, T::WIDTH + 2 * T::HALO, T::PITCH,
                                  T::CHANNELS * T::PITCH, T::HALO * 2, T::THREADS>;
    constexpr int LINES = T::HEIGHT * T::GROUP * T::SIDE, PITCH = 40;
    GOCOR_SHARED(half_t, reference_tiles, 2 * ReferenceLoader::SIZE);
    GOCOR_SHARED(half_t, query_tiles, 2 * QueryLoader::SIZE);
    static_assert(LINES * PITCH <= 2 * QueryLoader::SIZE, "lines fit where the query was");

    const Index3 block = block_index();
    const long long image = block.z * elements(C, H, W);
    const int column = thread_index() / 32 * 8;
    float sum[T::HEIGHT][T::GROUP][T::PRODUCTS][4] = {};
    for_each_chunk<RADIUS, ReferenceLoader, QueryLoader>(
        reference + image, query + image, reference_tiles, query_tiles, C, H, W,
        [&](const half_t* reference_tile, const half_t* query_tile) {
            multiply<RADIUS>(reference_tile + column, query_tile + column, sum);
        });

    keep_band<RADIUS, PITCH>(query_tiles + column, 1.0f / static_cast<float>(C), sum);
    sync_block();
    const Index3 origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    store_lines<LINES, T::WIDTH, PITCH, T::THREADS>(query_tiles, volume, origin.x, W, [&](int line) -> long long {
        const int y = origin.y + line / (T::GROUP * T::SIDE);
        const int displacement = block.y * T::GROUP * T::SIDE + line % (T::GROUP * T::SIDE);
        const bool inside = y < H && displacement < T::SIDE * T::SIDE;
        return inside ? (static_cast<long long>(block.z) * T::SIDE * T::SIDE + displacement) * H + y : -1;
    });
}

}  // namespace gocor::correlation

// The entry point gocor_local_correlation_<f32|f16>_r<radius>. Grid: tiles of an image, groups of dy, images.
#define GOCOR_LOCAL_CORRELATION_(DTYPE, TYPE, RADIUS)                                                               \
    GOCOR_KERNEL(gocor::correlation::Tiling<TYPE, RADIUS>::THREADS)                                                 \
    gocor_local_correlation_##DTYPE##_r##RADIUS(const TYPE* reference, const TYPE* query, int, int C, int H, int W, \
                                                TYPE* volume) {                                                     \
        gocor::correlation::run<RADIUS>(reference, query, C, H, W, volume);                                         \
    }
#define GOCOR_LOCAL_CORRELATION(...) GOCOR_LOCAL_CORRELATION_(__VA_ARGS__)  // after GOCOR_RADIUS is expanded

#ifdef GOCOR_RADIUS
#if GOCOR_HALF
GOCOR_LOCAL_CORRELATION(f16, gocor::half_t, GOCOR_RADIUS)
#else
GOCOR_LOCAL_CORRELATION(f32, float, GOCOR_RADIUS)
#endif
#endif
