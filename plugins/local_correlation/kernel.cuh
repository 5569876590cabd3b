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
// 12 query values, 4 reads of 16 bytes, for 36 multiply-adds: 16 shared-memory cycles of an SM against 9 (128
// lanes) to 18 (64 lanes) of arithmetic, in all 5 to 7 us on an H100 or A100, less than the 16.7 MB take. With
// 8 pixels a thread that would be 12 cycles, but half the blocks, of which level 3 then has 76 for 132 SMs.
template <int RADIUS>
struct Tiling<float, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::GROUP, Search<RADIUS>::HALO;
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
    static_assert(ROW_PITCH % 32 == 16, "no bank conflicts");
};

// half: tensor cores. For a row of 8 pixels and one dy, query (16 pixels x 16 channels) times reference (16
// channels x 8 pixels) holds all dx: 72 of 128 products are used, which tensor cores more than make up for
// (64,512 products of 4096 FLOP are 1,200 cycles of an A100). A warp takes 8 pixels of 2 rows and all 9 dy,
// 72 accumulators, so that each query row is read once for both rows. Beyond radius 4 the window is 24 pixels,
// two products.
template <int RADIUS>
struct Tiling<half_t, RADIUS> : Search<RADIUS> {
    using Search<RADIUS>::GROUP, Search<RADIUS>::HALO;
    static constexpr int WARPS = 4;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int WIDTH = 8 * WARPS;
    static constexpr int HEIGHT = RADIUS > 4 ? 1 : RADIUS > 2 ? 2 : 4;
    static constexpr int PRODUCTS = HALO / 4;  // for the window of 8 pixels
    static constexpr int CHANNELS = 16;        // of a chunk
    static constexpr int ROWS = HEIGHT + GROUP - 1;
    // Eight rows of 16 bytes each that load_matrices reads must lie on different banks: an odd multiple of 16
    // bytes from channel to channel.
    static constexpr int PITCH = HALO == 4 ? 40 : 56;
    static constexpr int REFERENCE_PITCH = 40;
};

template <int RADIUS>
GOCOR_DEVICE void run(const float* reference, const float* query, int C, int H, int W, float* volume) {
    using T = Tiling<float, RADIUS>;
    constexpr int SIDE = T::SIDE, PIXELS = T::PIXELS, SPAN = PIXELS + 2 * T::HALO;
    using ReferenceLoader =
        BoxLoader<float, T::HEIGHT, T::CHANNELS, T::WIDTH, T::WIDTH, T::CHANNELS * T::WIDTH, 16, T::THREADS>;
    using QueryLoader = BoxLoader<float, T::ROWS, T::CHANNELS, T::PITCH, T::PITCH, T::ROW_PITCH, 16, T::THREADS>;
    GOCOR_SHARED(float, reference_tiles, 2 * ReferenceLoader::SIZE);
    GOCOR_SHARED(float, query_tiles, 2 * QueryLoader::SIZE);

    const Index3 block = block_index(), origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const int first_dy = block.y * T::GROUP;
    const int plane = H * W, image = C * plane;
    reference += static_cast<long long>(block.z) * image;
    query += static_cast<long long>(block.z) * image;
    const ReferenceLoader reference_loader(reference, H, W, origin.x, origin.y);
    const QueryLoader query_loader(query, H, W, origin.x - T::HALO, origin.y + first_dy - RADIUS);
    const auto start = [&](int chunk) {
        const int done = chunk * T::CHANNELS * plane;
        if (chunk * T::CHANNELS < C) {
            reference_loader.start(reference_tiles + chunk % 2 * ReferenceLoader::SIZE, reference + done, image - done);
            query_loader.start(query_tiles + chunk % 2 * QueryLoader::SIZE, query + done, image - done);
        }
        commit_copies();
    };

    const int thread = thread_index();
    const int column = thread % (T::WIDTH / PIXELS) * PIXELS, row = thread / (T::WIDTH / PIXELS) % T::HEIGHT;
    const int dy = thread / (T::WIDTH / PIXELS * T::HEIGHT);
    float sum[SIDE][PIXELS] = {};
    start(0);
    start(1);
    for (int chunk = 0; chunk * T::CHANNELS < C; ++chunk) {
        wait_copies<1>();
        sync_block();
        const float* from_reference =
            reference_tiles + chunk % 2 * ReferenceLoader::SIZE + row * T::CHANNELS * T::WIDTH + column;
        const float* from_query = query_tiles + chunk % 2 * QueryLoader::SIZE + (row + dy) * T::ROW_PITCH + column;
        GOCOR_UNROLL
        for (int c = 0; c < T::CHANNELS; ++c) {
            const Float4 pixels = load4(from_reference + c * T::WIDTH);
            float window[SPAN];
            GOCOR_UNROLL
            for (int i = 0; i < SPAN; i += 4) {
                const Float4 four = load4(from_query + c * T::PITCH + i);
                GOCOR_UNROLL
                for (int k = 0; k < 4; ++k) window[i + k] = four.at[k];
            }
            GOCOR_UNROLL
            for (int dx = 0; dx < SIDE; ++dx) {
                GOCOR_UNROLL
                for (int i = 0; i < PIXELS; ++i) {
                    sum[dx][i] += pixels.at[i] * window[i + dx + T::HALO - RADIUS];
                }
            }
        }
        sync_block();
        start(chunk + 2);
    }

    const int x = origin.x + column, y = origin.y + row;
    if (first_dy + dy >= SIDE || y >= H || x >= W) return;
    const bool aligned = W % PIXELS == 0 && is_aligned(volume, 16);
    const float scale = 1.0f / static_cast<float>(C);
    const long long first_plane = (static_cast<long long>(block.z) * SIDE + first_dy + dy) * SIDE;
    float* to = volume + (first_plane * H + y) * W + x;
    GOCOR_UNROLL
    for (int dx = 0; dx < SIDE; ++dx, to += plane) {
        Float4 means;
        GOCOR_UNROLL
        for (int i = 0; i < PIXELS; ++i) means.at[i] = sum[dx][i] * scale;
        if (aligned) {
            store4(to, means);
        } else {
            GOCOR_UNROLL
            for (int i = 0; i < PIXELS; ++i) {
                if (x + i < W) to[i] = means.at[i];
            }
        }
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

template <int RADIUS>
GOCOR_DEVICE void run(const half_t* reference, const half_t* query, int C, int H, int W, half_t* volume) {
    using T = Tiling<half_t, RADIUS>;
    constexpr int SIDE = T::SIDE;
    using ReferenceLoader = BoxLoader<half_t, T::HEIGHT, T::CHANNELS, T::WIDTH, T::REFERENCE_PITCH,
                                      T::CHANNELS * T::REFERENCE_PITCH, 16, T::THREADS>;
    // The box begins HALO pixels left of a multiple of 32: 8 bytes aligned up to radius 4.
    using QueryLoader = BoxLoader<half_t, T::ROWS, T::CHANNELS, T::WIDTH + 2 * T::HALO, T::PITCH,
                                  T::CHANNELS * T::PITCH, T::HALO * 2, T::THREADS>;
    GOCOR_SHARED(half_t, reference_tiles, 2 * ReferenceLoader::SIZE);
    GOCOR_SHARED(half_t, query_tiles, 2 * QueryLoader::SIZE);

    const Index3 block = block_index(), origin = tile_origin<T::WIDTH, T::HEIGHT>(W);
    const int first_dy = block.y * T::GROUP;
    const int plane = H * W, image = C * plane;
    reference += static_cast<long long>(block.z) * image;
    query += static_cast<long long>(block.z) * image;
    const ReferenceLoader reference_loader(reference, H, W, origin.x, origin.y);
    const QueryLoader query_loader(query, H, W, origin.x - T::HALO, origin.y + first_dy - RADIUS);
    const auto start = [&](int chunk) {
        const int done = chunk * T::CHANNELS * plane;
        if (chunk * T::CHANNELS < C) {
            reference_loader.start(reference_tiles + chunk % 2 * ReferenceLoader::SIZE, reference + done, image - done);
            query_loader.start(query_tiles + chunk % 2 * QueryLoader::SIZE, query + done, image - done);
        }
        commit_copies();
    };

    const int lane = thread_index() % 32, column = thread_index() / 32 * 8;
    float sum[T::HEIGHT][T::GROUP][T::PRODUCTS][4] = {};
    start(0);
    start(1);
    for (int chunk = 0; chunk * T::CHANNELS < C; ++chunk) {
        wait_copies<1>();
        sync_block();
        multiply<RADIUS>(reference_tiles + chunk % 2 * ReferenceLoader::SIZE + column,
                         query_tiles + chunk % 2 * QueryLoader::SIZE + column, sum);
        sync_block();
        start(chunk + 2);
    }

    // The band of the products goes to shared memory as lines of 32 pixels, one for each row, dy and dx. The
    // pitch makes these 2-byte stores hit different banks.
    constexpr int LINES = T::HEIGHT * T::GROUP * SIDE, PITCH = 40;
    static_assert(LINES * PITCH <= 2 * QueryLoader::SIZE, "lines fit where the query was");
    half_t* lines = query_tiles;
    const float scale = 1.0f / static_cast<float>(C);
    GOCOR_UNROLL
    for (int row_dy = 0; row_dy < T::HEIGHT * T::GROUP; ++row_dy) {
        GOCOR_UNROLL
        for (int i = 0; i < T::PRODUCTS * 4; ++i) {
            const int from = i / 4 * 16 + i % 4 / 2 * 8 + lane / 4, to = lane % 4 * 2 + i % 2;
            const int dx = from - to - T::HALO + RADIUS;
            if (0 <= dx && dx < SIDE) {
                lines[(row_dy * SIDE + dx) * PITCH + column + to] =
                    to_half(sum[row_dy / T::GROUP][row_dy % T::GROUP][i / 4][i % 4] * scale);
            }
        }
    }
    sync_block();

    store_lines<LINES, T::WIDTH, PITCH, T::THREADS>(lines, volume, origin.x, W, [&](int line) -> long long {
        const int y = origin.y + line / (T::GROUP * SIDE);
        const int displacement = first_dy * SIDE + line % (T::GROUP * SIDE);
        const bool inside = y < H && displacement < SIDE * SIDE;
        return inside ? (static_cast<long long>(block.z) * SIDE * SIDE + displacement) * H + y : -1;
    });
}

}  // namespace gocor::correlation

// The entry point gocor_local_correlation_<f32|f16>_r<radius>. Grid: tiles of an image, groups of dy, images.
#define GOCOR_LOCAL_CORRELATION_(DTYPE, TYPE, RADIUS)                                            \
    GOCOR_KERNEL(gocor::correlation::Tiling<TYPE, RADIUS>::THREADS)                               \
    gocor_local_correlation_##DTYPE##_r##RADIUS(const TYPE* reference, const TYPE* query, int, int C, int H, \
                                                int W, TYPE* volume) {                            \
        gocor::correlation::run<RADIUS>(reference, query, C, H, W, volume);                       \
    }
#define GOCOR_LOCAL_CORRELATION(...) GOCOR_LOCAL_CORRELATION_(__VA_ARGS__)  // after GOCOR_RADIUS is expanded

#ifdef GOCOR_RADIUS
#if GOCOR_HALF
GOCOR_LOCAL_CORRELATION(f16, gocor::half_t, GOCOR_RADIUS)
#else
GOCOR_LOCAL_CORRELATION(f32, float, GOCOR_RADIUS)
#endif
#endif
