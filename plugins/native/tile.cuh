// What the kernels of all operators share: how far a search goes, and the tiles they hold in shared memory.

#pragma once

#include "native/device.cuh"

namespace gocor {

// The displacements (dx, dy) of a search with radius 1..8, each from -RADIUS to RADIUS.
template <int RADIUS>
struct Search {
    static constexpr int SIDE = 2 * RADIUS + 1;
    // Query pixels left and right of a tile that are loaded: the radius, rounded up to a multiple of 4, so that
    // rows of a tile start where 16 (float) or 8 (half) bytes start.
    static constexpr int HALO = RADIUS > 4 ? 8 : 4;
    // The displacements dy are worked on in groups: accumulators and tiles of all 17 would not fit.
    static constexpr int GROUPS = RADIUS > 4 ? 2 : 1;
    static constexpr int GROUP = ceil_div(SIDE, GROUPS);
};

// Where a pixel tile lies: blockIdx.x counts tiles, along the rows of an image first.
template <int WIDTH, int HEIGHT>
GOCOR_DEVICE Index3 tile_origin(int image_width) {
    const int across = ceil_div(image_width, WIDTH);
    const int tile = block_index().x;
    return {tile % across * WIDTH, tile / across * HEIGHT, 0};
}

// Number of elements of so many planes.
GOCOR_DEVICE long long elements(int planes, int height, int width) {
    return static_cast<long long>(planes) * height * width;
}

// How many lines threads copy together: whole rows of all planes, or an equal part of one.
GOCOR_DEVICE constexpr int lines_at_once(int planes, int most) {
    if (most >= planes) return most / planes * planes;
    while (planes % most != 0) --most;
    return most;
}

// Copies a box of an image (planes, height, width) to shared memory: ROWS rows of PLANES planes, WIDTH pixels
// each, zeros where the box sticks out of the image. It lies there as [row][plane][pixel] with PITCH elements
// from plane to plane and ROW_PITCH from row to row. An image has fewer than 2^31 elements.
//
// The copies go on in the background, BYTES at a time where image and box are aligned to that, otherwise one
// element at a time (half: at once, since cp.async takes no 2 bytes). A thread always copies the same columns, and
// goes from line to line, a line being one row of one plane, in steps of whole rows or equal parts of a row: then
// an address costs two additions and no division, and needs no register until it is used.
template <class T, int ROWS, int PLANES, int WIDTH, int PITCH, int ROW_PITCH, int BYTES, int THREADS>
class BoxLoader {
    static constexpr int STEP = BYTES / static_cast<int>(sizeof(T));
    static constexpr int STEPS = WIDTH / STEP;   // copies of a line
    static constexpr int LINES = ROWS * PLANES;  // line i is row i / PLANES of plane i % PLANES
    static constexpr int AT_ONCE = lines_at_once(PLANES, THREADS / STEPS);
    static constexpr int PARTS = AT_ONCE < PLANES ? PLANES / AT_ONCE : 1;         // of a row
    static constexpr int ROWS_AT_ONCE = AT_ONCE < PLANES ? 1 : AT_ONCE / PLANES;
    static_assert(WIDTH % STEP == 0 && PITCH % STEP == 0 && ROW_PITCH % STEP == 0, "copies are aligned");

    int height_, width_, x_, y_;
    bool aligned_;

    template <int WIDE>
    GOCOR_DEVICE void start_one(T* shared, const T* first, int planes, int plane, int row, int column) const {
        const int x = x_ + column, y = y_ + row;
        const bool inside = 0 <= x && x < width_ && 0 <= y && y < height_ && plane < planes;
        const int to = row * ROW_PITCH + plane * PITCH + column;
        const T* from = first + (inside ? (plane * height_ + y) * width_ + x : 0);
        if constexpr (WIDE == 2) {
            shared[to] = inside ? *from : T{};
        } else {
            copy_async<WIDE>(shared, to, from, inside);
        }
    }

public:
    static constexpr int SIZE = ROWS * ROW_PITCH;  // elements in shared memory

    // `x`, `y`: the first pixel of the box, may lie outside. `x` is a multiple of STEP.
    GOCOR_DEVICE BoxLoader(const T* image, int height, int width, int x, int y)
        : height_(height), width_(width), x_(x), y_(y), aligned_(is_aligned(image, BYTES) && width % STEP == 0) {}

    // Starts to copy. `first` is the first plane of the box in the image, `planes` the number of planes from there
    // to the end of the image: beyond it are zeros.
    GOCOR_DEVICE void start(T* shared, const T* first, int planes) const {
        const unsigned thread = opaque(thread_index());
        if (!aligned_) {
            GOCOR_NO_UNROLL
            for (int i = static_cast<int>(thread); i < LINES * WIDTH; i += THREADS) {
                const int line = i / WIDTH;
                start_one<sizeof(T)>(shared, first, planes, line % PLANES, line / PLANES, i % WIDTH);
            }
            return;
        }
        const int line = static_cast<int>(thread / STEPS), column = static_cast<int>(thread % STEPS) * STEP;
        if (line >= AT_ONCE) return;
        GOCOR_UNROLL_BY(8)
        for (int i = 0; i < ceil_div(LINES, AT_ONCE); ++i) {
            const int row = line / PLANES + i / PARTS * ROWS_AT_ONCE, plane = line % PLANES + i % PARTS * AT_ONCE;
            if (LINES % AT_ONCE == 0 || row < ROWS) start_one<BYTES>(shared, first, planes, plane, row, column);
        }
    }
};

// Reads neighbouring pixels, 16 bytes at a time.
template <int COUNT>
GOCOR_DEVICE void load_row(float (&pixels)[COUNT], const float* from) {
    GOCOR_UNROLL
    for (int i = 0; i < COUNT; i += 4) {
        const Float4 four = load4(from + i);
        GOCOR_UNROLL
        for (int k = 0; k < 4; ++k) pixels[i + k] = four.at[k];
    }
}

// Writes 4 neighbouring pixels, times `scale`, to columns x.. of a row of `width` pixels; at once if `aligned`.
GOCOR_DEVICE void store_pixels(float* row, int x, int width, const float (&pixels)[4], float scale, bool aligned) {
    Float4 scaled;
    GOCOR_UNROLL
    for (int i = 0; i < 4; ++i) scaled.at[i] = pixels[i] * scale;
    if (aligned) {
        if (x < width) store4(row + x, scaled);
        return;
    }
    GOCOR_UNROLL
    for (int i = 0; i < 4; ++i) {
        if (x + i < width) row[x + i] = scaled.at[i];
    }
}

// Writes LINES lines of WIDTH pixels from shared memory (PITCH elements from line to line) to image rows of
// `width` pixels, from pixel x on. `row_of(line)` is the line's row, counted through all images and planes, or
// negative if there is none. 16 bytes at a time where the rows are aligned.
template <int LINES, int WIDTH, int PITCH, int THREADS, class T, class RowOf>
GOCOR_DEVICE void store_lines(const T* lines, T* image, int x, int width, const RowOf& row_of) {
    constexpr int STEP = 16 / static_cast<int>(sizeof(T));
    if (width % STEP == 0 && is_aligned(image, 16)) {
        GOCOR_NO_UNROLL
        for (int i = thread_index(); i < LINES * WIDTH / STEP; i += THREADS) {
            const int line = i / (WIDTH / STEP), column = i % (WIDTH / STEP) * STEP;
            const long long row = row_of(line);
            if (row >= 0 && x + column < width) {
                store16(image + row * width + x + column, load16(lines + line * PITCH + column));
            }
        }
    } else {
        GOCOR_NO_UNROLL
        for (int i = thread_index(); i < LINES * WIDTH; i += THREADS) {
            const int line = i / WIDTH, column = i % WIDTH;
            const long long row = row_of(line);
            if (row >= 0 && x + column < width) image[row * width + x + column] = lines[line * PITCH + column];
        }
    }
}

}  // namespace gocor
