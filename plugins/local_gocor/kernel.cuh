// LocalGOCor: initial filters, n steps of their optimisation and their scores on the query, in one launch.
//
// A filter is never formed. It is a sum of its pixel's neighbours f_d, w = sum_d z_d f_d, and so is every gradient
// (u below), so that the (2r+1)^2 coefficients z of a pixel, its scores s and one product are all there is to keep:
//
//     pass(u):  g = sum_d u_d f_d,  p_d = 1/C <g, f_d>,  |g|^2       for each channel chunk once, then never again
//
//     z = 1 at the centre;  pass(z): g is f itself, so that |g|^2 / C = mean_c f^2, which scales z and s = p
//     n times:  u = r(s) / C + lambda z;  pass(u);  step = eta |g|^2 / max(sum_d (a' p)_d^2 + lambda |g|^2, 1e-8);
//               z -= step u;  s -= step p      since correlation is linear
//     pass(z), with the query in the place of the second f: p is the volume
//
// z, s, p and sums are float32 in registers, and no channel of a filter leaves the chip. Both products of a pass
// run on tensor cores: 16 pixels (8 of two rows) by the window around them, half of which are neighbours of a pixel;
// the others have u = 0. What one product leaves in a thread's registers is what the other takes there: u, g and p
// are never moved. Each warp takes some rows of the window; of g they make the sum in shared memory.
//
// Precision. u and g are differences of larger numbers: rounded to float16 the volume was wrong by up to 3e-2
// (relative L2; features of a trained PWC-Net-GOCor: 6e-3). So each is multiplied as two numbers, the nearest one and
// what is missing: 2.6e-4 at most, of which 2.1e-4 is the rounding of the output. u is scaled by a power of two so
// that sum_d |u_d| <= 1: then |g| is no larger than the largest |f|. For float32 both factors are two numbers of 11
// bits (TF32), three products; 1e-6.
//
// Numbers: docs/performance.md. Zeros outside the displacements are multiplied, too: a feature that is not finite
// makes NaN up to 7 pixels beyond the radius, as in the function body of the ONNX model.

#include "native/tile.cuh"

namespace gocor::fused {

template <class T, int RADIUS>
struct Tiling : Search<RADIUS> {
    using Search<RADIUS>::HALO, Search<RADIUS>::SIDE;
    static constexpr bool HALF = sizeof(T) == 2;
    static constexpr int DISPLACEMENTS = SIDE * SIDE;
    // The 2 (radius + 1) rows of the window of two rows of pixels, in equal parts for some warps. A thread keeps
    // 3 numbers and an operand for each of its OWN * BLOCKS * 4 places: at most 10 blocks.
    static constexpr int OWN = RADIUS <= 4 ? RADIUS + 1 : RADIUS % 3 == 2 ? 3 : 2;
    static constexpr int SPLITS = 2 * (RADIUS + 1) / OWN;
    static constexpr int GROUPS = RADIUS <= 4 ? 2 : 1;  // of two rows of pixels
    static constexpr int WARPS = GROUPS * SPLITS;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int WIDTH = 8;
    static constexpr int HEIGHT = 2 * GROUPS;
    static constexpr int COLUMNS = WIDTH + 2 * HALO;  // of the window
    static constexpr int BLOCKS = COLUMNS / 8;
    static constexpr int ROWS = HEIGHT + 2 * RADIUS;
    static constexpr int CHANNELS = HALF || RADIUS <= 4 ? 16 : 8;  // of a chunk
    // half: an odd multiple of 16 bytes from channel to channel keeps the rows that load_matrices reads on different
    // banks. float: 8 or 24 modulo 32 does so for the pairs of the first product, and half of the second one's.
    static constexpr int PITCH = ROWS * COLUMNS + 8;
    static_assert(PITCH % 16 == 8, "few bank conflicts");
    static constexpr int SLOT = CHANNELS * PITCH;  // elements of a chunk
    static constexpr int PARTIAL = CHANNELS / 8 * 128;  // floats that a warp adds to g
    static constexpr int SUMS = (HALF ? 2 : 1) * WARPS * 16;
    // Maps of the displacements with zeros around them, so that all places of a block can be looked up: rows -1 to
    // SIDE, and from row to row as many zeros as a place can be left of or right of the displacements.
    static constexpr int MAP_PITCH = SIDE + 7 + HALO - RADIUS;
    static constexpr int MAP_ORIGIN = 2 * MAP_PITCH - SIDE;
    static constexpr int MAP = MAP_ORIGIN + (SIDE + 1) * MAP_PITCH;
    static constexpr int ROOM = 49152 - (2 * WARPS * PARTIAL + SUMS + 3 * MAP) * 4;
    static constexpr int FITTING = ROOM / (SLOT * static_cast<int>(sizeof(T)));
    static constexpr int SLOTS = FITTING < 8 ? FITTING : 8;
    static_assert(SLOTS >= 2, "one chunk is loaded while another is worked on");
};

// Values of 16 pixels at 8 places each, as a warp holds them: value i of a lane is of pixel lane / 4 in row i / 2, and
// place 2 (lane % 4) + i % 2.
using Block = float[4];

// Blocks side by side, as left factors of products.
template <class T, int BLOCKS>
struct Left;

template <int BLOCKS>
struct Left<half_t, BLOCKS> {
    static constexpr int STEPS = ceil_div(BLOCKS, 2);
    unsigned high[STEPS][4], low[STEPS][4];

    // The blocks, times a power of two for each row of pixels.
    GOCOR_DEVICE void set(const Block (&values)[BLOCKS], const float (&scale)[2]) {
        GOCOR_UNROLL
        for (int i = 0; i < STEPS * 4; ++i) high[i / 4][i % 4] = low[i / 4][i % 4] = 0;
        GOCOR_UNROLL
        for (int i = 0; i < BLOCKS * 2; ++i) {
            half_t nearest[2], missing[2];
            GOCOR_UNROLL
            for (int k = 0; k < 2; ++k) {
                const float value = values[i / 2][i % 2 * 2 + k] * scale[i % 2];
                nearest[k] = to_half(value);
                missing[k] = to_half(value - to_float(nearest[k]));
            }
            high[i / 4][i % 4] = pack(nearest[0], nearest[1]);
            low[i / 4][i % 4] = pack(missing[0], missing[1]);
        }
    }

    GOCOR_DEVICE float get(int block, int i) const {
        const int step = block / 2, pair = block % 2 * 2 + i / 2;
        const auto part = [&](unsigned both) {
            return to_float({static_cast<unsigned short>(i % 2 == 0 ? both : both >> 16U)});
        };
        return part(high[step][pair]) + part(low[step][pair]);
    }

    // Two products, in turns, since each sum has to wait for the last one. `exact`: without what is missing.
    GOCOR_DEVICE void multiply_add_to(float (&first)[4], float (&second)[4], int step, const unsigned (&right)[4],
                                      bool exact) const {
        if (!exact) multiply_add(first, low[step], {right[0], right[1]});
        if (!exact) multiply_add(second, low[step], {right[2], right[3]});
        multiply_add(first, high[step], {right[0], right[1]});
        multiply_add(second, high[step], {right[2], right[3]});
    }

    GOCOR_DEVICE void multiply_add_to(float (&sum)[4], int step, unsigned right, unsigned next, bool exact) const {
        if (!exact) multiply_add(sum, low[step], {right, next});
        multiply_add(sum, high[step], {right, next});
    }
};

template <int BLOCKS>
struct Left<float, BLOCKS> {
    Block values[BLOCKS];

    GOCOR_DEVICE void set(const Block (&from)[BLOCKS], const float (&)[2]) {
        GOCOR_UNROLL
        for (int i = 0; i < BLOCKS * 4; ++i) values[i / 4][i % 4] = from[i / 4][i % 4];
    }

    GOCOR_DEVICE float get(int block, int i) const { return values[block][i]; }
};

// Numbers as two of 11 bits each.
template <int COUNT>
struct Parts {
    unsigned high[COUNT], low[COUNT];

    GOCOR_DEVICE void set(int i, float value) {
        high[i] = to_tf32(value);
        low[i] = to_tf32(value - float_of(high[i]));
    }
};

// Sums and values of a block are in one order, factors in another: the k-th column of a left factor is place
// 2 (k % 4) + k / 4 here, and so must be the rows of the right one.
GOCOR_DEVICE Parts<4> parts_of(const Block& block) {
    Parts<4> parts;
    GOCOR_UNROLL
    for (int i = 0; i < 4; ++i) parts.set(i, block[i % 2 * 2 + i / 2]);
    return parts;
}

GOCOR_DEVICE void multiply_add_parts(float (&sum)[4], const Parts<4>& left, float right, float next) {
    Parts<2> rights;
    rights.set(0, right);
    rights.set(1, next);
    multiply_add_tf32(sum, left.low, rights.high);
    multiply_add_tf32(sum, left.high, rights.low);
    multiply_add_tf32(sum, left.high, rights.high);
}

// g (16 pixels x channels) += u (16 pixels x one row of the window) features (row x channels).
template <int RADIUS>
GOCOR_DEVICE void add_to_filters(Block (&filters)[2], const Left<half_t, Tiling<half_t, RADIUS>::BLOCKS>& left,
                                 const half_t* row, bool exact) {
    using Tile = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32;
    unsigned right[4];
    load_matrices(right, row + (lane / 16 * 8 + lane % 8) * Tile::PITCH + lane / 8 % 2 * 8);
    left.multiply_add_to(filters[0], filters[1], 0, right, exact);
    if constexpr (Tile::BLOCKS == 3) {
        unsigned third[2];
        load_matrices(third, row + lane % 16 * Tile::PITCH + 16);
        left.multiply_add_to(filters[0], filters[1], 1, {third[0], 0, third[1], 0}, exact);
    }
}

template <int RADIUS>
GOCOR_DEVICE void add_to_filters(Block (&filters)[Tiling<float, RADIUS>::CHANNELS / 8],
                                 const Left<float, Tiling<float, RADIUS>::BLOCKS>& left, const float* row, bool) {
    using Tile = Tiling<float, RADIUS>;
    const int lane = thread_index() % 32;
    GOCOR_UNROLL
    for (int block = 0; block < Tile::BLOCKS; ++block) {
        const Parts<4> parts = parts_of(left.values[block]);
        GOCOR_UNROLL
        for (int i = 0; i < Tile::CHANNELS / 8; ++i) {
            const Float2 pair = load2(row + (i * 8 + lane / 4) * Tile::PITCH + block * 8 + lane % 4 * 2);
            multiply_add_parts(filters[i], parts, pair.at[0], pair.at[1]);
        }
    }
}

// p (16 pixels x one row of the window) += g (16 pixels x channels) features (channels x row).
template <int RADIUS>
GOCOR_DEVICE void add_to_products(Block (&products)[Tiling<half_t, RADIUS>::BLOCKS], const Left<half_t, 2>& filters,
                                  const half_t* row, bool exact) {
    using Tile = Tiling<half_t, RADIUS>;
    const int lane = thread_index() % 32;
    const half_t* channel = row + lane % 16 * Tile::PITCH;
    unsigned right[4];
    load_matrices_transposed(right, channel + lane / 16 * 8);
    filters.multiply_add_to(products[0], products[1], 0, right, exact);
    if constexpr (Tile::BLOCKS == 3) {
        unsigned third[2];
        load_matrices_transposed(third, channel + 16);
        filters.multiply_add_to(products[2], 0, third[0], third[1], exact);
    }
}

template <int RADIUS>
GOCOR_DEVICE void add_to_products(Block (&products)[Tiling<float, RADIUS>::BLOCKS],
                                  const Left<float, Tiling<float, RADIUS>::CHANNELS / 8>& filters, const float* row, bool) {
    using Tile = Tiling<float, RADIUS>;
    const int lane = thread_index() % 32;
    GOCOR_UNROLL
    for (int i = 0; i < Tile::CHANNELS / 8; ++i) {
        const Parts<4> parts = parts_of(filters.values[i]);
        const float* channel = row + (i * 8 + lane % 4 * 2) * Tile::PITCH + lane / 4;
        GOCOR_UNROLL
        for (int block = 0; block < Tile::BLOCKS; ++block) {
            multiply_add_parts(products[block], parts, channel[block * 8], channel[Tile::PITCH + block * 8]);
        }
    }
}

// The features around the tile, in chunks of channels. If all those of both images fit into shared memory they are
// read once; otherwise they pass through it again for every pass, from L2 mostly, SLOTS - 1 chunks ahead.
template <class T, int RADIUS>
class Features {
    using Tile = Tiling<T, RADIUS>;
    // Boxes begin HALO pixels left of a multiple of 8: for half up to radius 4, 8 bytes are aligned.
    static constexpr int BYTES = Tile::HALF && Tile::HALO == 4 ? 8 : 16;
    using Loader =
        BoxLoader<T, Tile::ROWS, Tile::CHANNELS, Tile::COLUMNS, Tile::PITCH, Tile::COLUMNS, BYTES, Tile::THREADS>;

    const T *reference_, *query_;
    T* slots_;
    int channels_, height_, width_, x_, y_, chunks_, of_reference_, started_ = 0, taken_ = 0;
    bool resident_;

    // Starts the next load of the whole computation, if there is one left.
    GOCOR_DEVICE void start() {
        const int load = started_++, after = load - of_reference_;
        const bool mixed = !resident_ && after >= 0;  // reference and query in turns
        const int chunk = mixed ? after / 2 : load % chunks_;
        if (chunk < chunks_ && after < 2 * chunks_) {
            const T* image = (mixed ? after % 2 != 0 : after >= 0) ? query_ : reference_;
            const int channel = chunk * Tile::CHANNELS;
            const Loader loader(image, height_, width_, x_ - Tile::HALO, y_ - RADIUS);
            loader.start(slots_ + load % Tile::SLOTS * Tile::SLOT, image + elements(channel, height_, width_),
                         channels_ - channel);
        }
        commit_copies();
    }

    GOCOR_DEVICE const T* take() {
        wait_copies<Tile::SLOTS - 2>();
        sync_block();  // what was taken before is done with, too: its place is free
        start();
        sync_warp();
        return slots_ + taken_++ % Tile::SLOTS * Tile::SLOT;
    }

public:
    // `reference` and `query` are of the block's image, `x` and `y` its first pixel.
    GOCOR_DEVICE Features(const T* reference, const T* query, T* slots, int C, int H, int W, int x, int y,
                          int iterations)
        : reference_(reference),
          query_(query),
          slots_(slots),
          channels_(C),
          height_(H),
          width_(W),
          x_(x),
          y_(y),
          chunks_(ceil_div(C, Tile::CHANNELS)),
          of_reference_(chunks_),
          resident_(2 * chunks_ <= Tile::SLOTS) {
        if (!resident_) of_reference_ *= iterations + 1;
        const int first = resident_ ? 2 * chunks_ : Tile::SLOTS - 1;
        GOCOR_NO_UNROLL
        for (int i = 0; i < first; ++i) start();
        if (resident_) {
            wait_copies<0>();
            sync_block();
        }
    }

    GOCOR_DEVICE int chunks() const { return chunks_; }

    // These give the chunks in the order of the computation, and each again only in the next pass.
    GOCOR_DEVICE const T* reference(int chunk) { return resident_ ? slots_ + chunk * Tile::SLOT : take(); }
    GOCOR_DEVICE const T* query(int chunk) { return resident_ ? slots_ + (chunks_ + chunk) * Tile::SLOT : take(); }
};

// What the optimiser knows of displacements, as it is needed: v, v m and v y, with zeros around them.
template <class Tile>
GOCOR_DEVICE void fill_maps(float* maps, const float* target, const float* weight, const float* mask) {
    for (int i = thread_index(); i < Tile::MAP; i += Tile::THREADS) {
        const int dy = (i - Tile::MAP_ORIGIN) / Tile::MAP_PITCH, dx = (i - Tile::MAP_ORIGIN) % Tile::MAP_PITCH;
        const bool inside = i >= Tile::MAP_ORIGIN && dy < Tile::SIDE && dx < Tile::SIDE;
        const int d = inside ? dy * Tile::SIDE + dx : 0;
        const float v = inside ? weight[d] : 0;
        maps[i] = v;
        maps[Tile::MAP + i] = v * mask[d];
        maps[2 * Tile::MAP + i] = v * target[d];
    }
}

// The optimisation of one tile.
template <class T, int RADIUS>
class Optimizer {
    using Tile = Tiling<T, RADIUS>;
    static constexpr int OWN = Tile::OWN, BLOCKS = Tile::BLOCKS, SPLITS = Tile::SPLITS;

    float *partials_, *sums_;
    const float* maps_;  // of this lane's first place
    float one_over_c_;
    int lane_, warp_, group_, split_;
    int turn_ = 0;  // the buffers of partial filters are used in turns, so that one barrier each is enough
    // In the places that are no displacement of their pixel coefficients are 0, and scores and products anything.
    Block scores_[OWN][BLOCKS] = {}, coefficients_[OWN][BLOCKS] = {}, products_[OWN][BLOCKS];
    Left<T, BLOCKS> direction_[OWN];
    float scale_[2], squared_[2];  // of the direction, and |g|^2, for the pixels in both rows
    float centre_share_[2] = {1, 1};  // of the centre in the sum that says the scale

    // Calls work(row, block, i) for each of this lane's places.
    template <class Work>
    GOCOR_DEVICE static void for_each(const Work& work) {
        GOCOR_UNROLL
        for (int place = 0; place < OWN * BLOCKS * 4; ++place) {
            work(place / (BLOCKS * 4), place / 4 % BLOCKS, place % 4);
        }
    }

    // Displacement of a place of this lane.
    GOCOR_DEVICE int dy(int row, int i) const { return split_ * OWN + row - i / 2; }
    GOCOR_DEVICE int dx(int block, int i) const {
        return block * 8 + lane_ % 4 * 2 + i % 2 - lane_ / 4 - (Tile::HALO - RADIUS);
    }

    GOCOR_DEVICE float map(int which, int row, int block, int i) const {
        return maps_[which * Tile::MAP + (row - i / 2) * Tile::MAP_PITCH + block * 8 + i % 2];
    }

    // a' = v s'(s, m)
    GOCOR_DEVICE float slope(int row, int block, int i) const {
        const float score = scores_[row][block][i];
        const float above = map(0, row, block, i), below = map(1, row, block, i);
        return score > 0 ? above : score < 0 ? below : 0.5f * (above + below);
    }

    // Calls work(tile row, row, block, i) for the places of this lane that are the centre of their window, if any.
    template <class Work>
    GOCOR_DEVICE void for_centre(const Work& work) const {
        GOCOR_UNROLL
        for (int place = 0; place < 4 * BLOCKS; ++place) {
            const int tile_row = place / (2 * BLOCKS), block = place / 2 % BLOCKS, i = tile_row * 2 + place % 2;
            if (split_ != (RADIUS + tile_row) / OWN || dx(block, i) != RADIUS) continue;
            work(tile_row, (RADIUS + tile_row) % OWN, block, i);
        }
    }

    // Sums over the whole windows of this lane's two pixels. `which` is 0 or 1, in turns.
    GOCOR_DEVICE void sum_up(float (&sums)[2], int which) {
        float* shared = sums_ + which * Tile::WARPS * 16;
        GOCOR_UNROLL
        for (int i = 0; i < 2; ++i) {
            const float of_row = sum_of_four(sums[i]);
            if (lane_ % 4 == 0) shared[warp_ * 16 + i * 8 + lane_ / 4] = of_row;
        }
        sync_block();
        GOCOR_UNROLL
        for (int i = 0; i < 2; ++i) {
            sums[i] = 0;
            GOCOR_UNROLL
            for (int split = 0; split < SPLITS; ++split) {
                sums[i] += shared[(group_ * SPLITS + split) * 16 + i * 8 + lane_ / 4];
            }
        }
    }

    // For half the direction is scaled so that sum_d |u_d| <= 1. A pixel whose own vector is far smaller than those
    // around it has a coefficient as much larger, beside which the others would vanish: it counts as what it makes.
    GOCOR_DEVICE void set_direction(const Block (&values)[OWN][BLOCKS]) {
        float inverse[2] = {1, 1};
        scale_[0] = scale_[1] = 1;
        if constexpr (Tile::HALF) {
            float sums[2] = {};
            for_each([&](int row, int block, int i) { sums[i / 2] += magnitude(values[row][block][i]); });
            for_centre([&](int tile_row, int row, int block, int i) {
                sums[tile_row] += (centre_share_[tile_row] - 1) * magnitude(values[row][block][i]);
            });
            sum_up(sums, 0);
            GOCOR_UNROLL
            for (int i = 0; i < 2; ++i) {
                scale_[i] = power_of_two_from(sums[i]);
                inverse[i] = 1 / scale_[i];
            }
        }
        GOCOR_UNROLL
        for (int row = 0; row < OWN; ++row) direction_[row].set(values[row], inverse);
    }

    // All warps of a group get the sum of their partial filters.
    GOCOR_DEVICE void add_partials(Block (&filters)[Tile::CHANNELS / 8]) {
        float* buffer = partials_ + turn_ * Tile::WARPS * Tile::PARTIAL;
        turn_ ^= 1;
        GOCOR_UNROLL
        for (int i = 0; i < Tile::CHANNELS / 8; ++i) {
            const float(&from)[4] = filters[i];
            store4(buffer + warp_ * Tile::PARTIAL + i * 128 + lane_ * 4, {{from[0], from[1], from[2], from[3]}});
        }
        sync_block();
        GOCOR_UNROLL
        for (int i = 0; i < Tile::CHANNELS / 8; ++i) {
            Block sum = {};
            GOCOR_UNROLL
            for (int split = 0; split < SPLITS; ++split) {
                const int warp = group_ * SPLITS + split;
                const Float4 part = load4(buffer + warp * Tile::PARTIAL + i * 128 + lane_ * 4);
                GOCOR_UNROLL
                for (int k = 0; k < 4; ++k) sum[k] += part.at[k];
            }
            GOCOR_UNROLL
            for (int k = 0; k < 4; ++k) filters[i][k] = sum[k];
        }
    }

public:
    GOCOR_DEVICE Optimizer(float* partials, float* sums, const float* maps, int C)
        : partials_(partials),
          sums_(sums),
          one_over_c_(1.0f / static_cast<float>(C)),
          lane_(thread_index() % 32),
          warp_(thread_index() / 32),
          group_(warp_ / SPLITS),
          split_(warp_ % SPLITS) {
        maps_ = maps + Tile::MAP_ORIGIN + dy(0, 0) * Tile::MAP_PITCH + dx(0, 0);
        for_centre([&](int, int row, int block, int i) { coefficients_[row][block][i] = 1; });
    }

    // The next pass is along the filters themselves ...
    GOCOR_DEVICE void turn_to_filters() { set_direction(coefficients_); }

    // ... or along the gradient of the loss. (One call of set_direction for both makes the compiler spill registers.)
    GOCOR_DEVICE void turn_to_gradient(float regularization) {
        Block values[OWN][BLOCKS];
        for_each([&](int row, int block, int i) {
            const float a = slope(row, block, i);
            const float residual = a * (a * scores_[row][block][i] - map(2, row, block, i));
            values[row][block][i] = residual * one_over_c_ + regularization * coefficients_[row][block][i];
        });
        set_direction(values);
    }

    // Along the direction: g, |g|^2, and products of g with the reference, or the query if it is `last`. The `first`
    // one is along the reference vectors, which are exact.
    GOCOR_DEVICE void pass(Features<T, RADIUS>& features, bool first, bool last) {
        for_each([&](int row, int block, int i) { products_[row][block][i] = 0; });
        float squares[2] = {};
        sync_warp();
        const int first_row = (group_ * 2 + split_ * OWN) * Tile::COLUMNS;
        GOCOR_NO_UNROLL
        for (int chunk = 0; chunk < features.chunks(); ++chunk) {
            const T* rows = features.reference(chunk) + first_row;
            Block filters[Tile::CHANNELS / 8] = {}, others[Tile::CHANNELS / 8] = {};
            GOCOR_UNROLL
            for (int row = 0; row < OWN; ++row) {
                auto& sum = row % 2 == 0 ? filters : others;  // each waits for the last product
                add_to_filters<RADIUS>(sum, direction_[row], rows + row * Tile::COLUMNS, first);
            }
            GOCOR_UNROLL
            for (int i = 0; i < Tile::CHANNELS / 8 * 4; ++i) filters[i / 4][i % 4] += others[i / 4][i % 4];
            add_partials(filters);
            GOCOR_UNROLL
            for (int i = 0; i < Tile::CHANNELS / 8 * 4; ++i) {
                squares[i % 4 / 2] += filters[i / 4][i % 4] * filters[i / 4][i % 4];
            }
            if (last) rows = features.query(chunk) + first_row;
            Left<T, Tile::CHANNELS / 8> left;
            left.set(filters, {1, 1});
            GOCOR_UNROLL
            for (int row = 0; row < OWN; ++row) {
                add_to_products<RADIUS>(products_[row], left, rows + row * Tile::COLUMNS, first);
            }
        }
        GOCOR_UNROLL
        for (int i = 0; i < 2; ++i) squared_[i] = sum_of_four(squares[i]) * scale_[i] * scale_[i];
        const float scale[2] = {scale_[0] * one_over_c_, scale_[1] * one_over_c_};
        for_each([&](int row, int block, int i) { products_[row][block][i] *= scale[i / 2]; });
    }

    // After a pass along the reference vectors: makes initial filters of them.
    GOCOR_DEVICE void initialize(float scaling) {
        float factor[2];
        GOCOR_UNROLL
        for (int i = 0; i < 2; ++i) {
            factor[i] = scaling / (squared_[i] * one_over_c_ + 1e-6f);
            constexpr float least = 1.0f / 32768;  // no coefficient overflows
            centre_share_[i] = squared_[i] > 1 ? 1 : squared_[i] > least ? squared_[i] : least;
        }
        for_each([&](int row, int block, int i) {
            coefficients_[row][block][i] *= factor[i / 2];
            scores_[row][block][i] = factor[i / 2] * products_[row][block][i];
        });
    }

    // After a pass along the gradient: a step of steepest descent.
    GOCOR_DEVICE void descend(float step_length, float regularization, float steplength_regularization) {
        float changes[2] = {};
        for_each([&](int row, int block, int i) {
            const float change = slope(row, block, i) * products_[row][block][i];
            changes[i / 2] += change * change;
        });
        sum_up(changes, Tile::HALF ? 1 : 0);
        float step[2], scaled[2];
        GOCOR_UNROLL
        for (int i = 0; i < 2; ++i) {
            const float curvature = changes[i] + regularization * squared_[i];
            const float floored = curvature > 1e-8f ? curvature : 1e-8f;
            step[i] = step_length * (squared_[i] / (floored + steplength_regularization * squared_[i]));
            scaled[i] = step[i] * scale_[i];
        }
        for_each([&](int row, int block, int i) {
            scores_[row][block][i] -= step[i / 2] * products_[row][block][i];
            coefficients_[row][block][i] -= scaled[i / 2] * direction_[row].get(block, i);
        });
    }

    // After the pass to the query: lines of 8 pixels, one for each row of the tile and displacement.
    GOCOR_DEVICE void keep_products(T* lines) const {
        T* first = lines + (group_ * 2 * Tile::DISPLACEMENTS + dy(0, 0) * Tile::SIDE + dx(0, 0)) * 8 + lane_ / 4;
        for_each([&](int row, int block, int i) {
            const int y = dy(row, i), x = dx(block, i);
            if (y < 0 || y >= Tile::SIDE || x < 0 || x >= Tile::SIDE) return;
            const int d = (row - i / 2) * Tile::SIDE + block * 8 + i % 2;  // from the first place on
            T& to = first[(i / 2 * Tile::DISPLACEMENTS + d) * 8];
            if constexpr (Tile::HALF) {
                to = to_half(products_[row][block][i]);
            } else {
                to = products_[row][block][i];
            }
        });
    }
};

template <int RADIUS, class T>
GOCOR_DEVICE void run(const T* reference, const T* query, const float* target, const float* weight, const float* mask,
                      const float* scalars, int C, int H, int W, int iterations, T* volume) {
    using Tile = Tiling<T, RADIUS>;
    GOCOR_SHARED(T, slots, Tile::SLOTS * Tile::SLOT);
    GOCOR_SHARED(float, partials, 2 * Tile::WARPS * Tile::PARTIAL);
    GOCOR_SHARED(float, sums, Tile::SUMS);
    GOCOR_SHARED(float, maps, 3 * Tile::MAP);
    fill_maps<Tile>(maps, target, weight, mask);
    const Index3 block = block_index(), origin = tile_origin<Tile::WIDTH, Tile::HEIGHT>(W);
    const long long image = block.z * elements(C, H, W);
    const float scaling = scalars[0], step_length = scalars[1], regularization = scalars[2];
    Features<T, RADIUS> features(reference + image, query + image, slots, C, H, W, origin.x, origin.y, iterations);
    Optimizer<T, RADIUS> optimizer(partials, sums, maps, C);
    // One loop for all passes, since each would be a copy of the code.
    GOCOR_NO_UNROLL
    for (int step = 0; step <= iterations + 1; ++step) {
        const bool last = step > iterations;
        if (step == 0 || last) {
            optimizer.turn_to_filters();
        } else {
            optimizer.turn_to_gradient(regularization);
        }
        optimizer.pass(features, step == 0, last);
        if (step == 0) {
            optimizer.initialize(scaling);
        } else if (!last) {
            optimizer.descend(step_length, regularization, scalars[3]);
        }
    }

    constexpr int LINES = Tile::HEIGHT * Tile::DISPLACEMENTS;
    static_assert(LINES * Tile::WIDTH <= Tile::SLOTS * Tile::SLOT, "lines fit where the features were");
    sync_block();
    optimizer.keep_products(slots);
    sync_block();
    store_lines<LINES, Tile::WIDTH, Tile::WIDTH, Tile::THREADS>(slots, volume, origin.x, W, [&](int line) -> long long {
        const int y = origin.y + line / Tile::DISPLACEMENTS;
        const long long plane = static_cast<long long>(block.z) * Tile::DISPLACEMENTS + line % Tile::DISPLACEMENTS;
        return y < H ? plane * H + y : -1;
    });
}

}  // namespace gocor::fused

// The entry point gocor_local_gocor_<f32|f16>_r<radius>. Grid: tiles of an image, 1, images.
#define GOCOR_LOCAL_GOCOR_(DTYPE, TYPE, RADIUS)                                                                     \
    GOCOR_LARGE_KERNEL(gocor::fused::Tiling<TYPE, RADIUS>::THREADS)                                                 \
    gocor_local_gocor_##DTYPE##_r##RADIUS(const TYPE* reference, const TYPE* query, const float* target,            \
                                          const float* weight, const float* mask, const float* scalars, int, int C, \
                                          int H, int W, int iterations, TYPE* volume) {                             \
        gocor::fused::run<RADIUS>(reference, query, target, weight, mask, scalars, C, H, W, iterations, volume);    \
    }
#define GOCOR_LOCAL_GOCOR(...) GOCOR_LOCAL_GOCOR_(__VA_ARGS__)  // after GOCOR_RADIUS is expanded

#ifdef GOCOR_RADIUS
#if GOCOR_HALF
GOCOR_LOCAL_GOCOR(f16, gocor::half_t, GOCOR_RADIUS)
#else
GOCOR_LOCAL_GOCOR(f32, float, GOCOR_RADIUS)
#endif
#endif
