// Products with weights of 8 or 4 bits.
//
// The inputs become integers of 16 bits, with a power of two as the scale of each group of 32: their
// 8 bits of bfloat16 are kept but where others of the group are 2^7 times as large. So the sums of a
// group are exact, and take an instruction for a pair of inputs on every processor.
#pragma once

#include "matrix.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr int MOST_QUANTISED_ROWS = 6;  // of one tile with 2 blocks; with 4 blocks half of it

struct Powers {
    float scale, inverse;
};

// The power of two that a group is divided by, by the bits of its largest number in bfloat16: this
// one becomes an integer from 2^14 to 2^15. What is smaller than 2^-100 is 0.
inline Powers powers_of(int bits) {
    if (bits >= 0x7f80) return {NAN, 0.0f};  // infinite, or no number
    const uint32_t exponent = (uint32_t)bits >> 7;
    if (exponent < 27) return {0.0f, 0.0f};
    const uint32_t parts[] = {(exponent - 14) << 23, (254 + 14 - exponent) << 23};
    Powers powers;
    memcpy(&powers, parts, sizeof powers);
    return powers;
}

// Rows of bfloat16 as integers, in memory of this thread. The scale of a group with a number that is
// none is none.
inline Rows as_integers(const uint16_t* states, int inputs, int num_rows) {
    static thread_local std::vector<int16_t> integers;
    static thread_local std::vector<float> scales, sums;
    const size_t groups = (size_t)num_rows * inputs / (2 * GROUP);
    integers.resize(groups * 2 * GROUP);
    scales.resize(groups);
    sums.resize(groups);
    for (size_t group = 0; group < groups; group++) {
        const uint16_t* given = states + group * 2 * GROUP;
        Ints sizes{};  // their bits, which are in the order of the numbers
        for (int i = 0; i < 2 * GROUP; i += LANES) {
            const Ints part = __builtin_convertvector(load<Halves>(given + i), Ints) & 0x7fff;
            sizes = part > sizes ? part : sizes;
        }
        const Powers powers = powers_of(largest(sizes));
        scales[group] = powers.scale;
        Ints total{};
        for (int i = 0; i < 2 * GROUP; i += LANES) {
            const Ints whole = rounded(widened(given + i) * powers.inverse);
            total = total + whole;
            store(&integers[group * 2 * GROUP + i], __builtin_convertvector(whole, Shorts));
        }
        sums[group] = (float)sum(total);
    }
    return {(const uint32_t*)integers.data(), num_rows, scales.data(), sums.data()};
}

// The pairs of a block's weights, as integers of 16 bits.
struct Bytes {
    static constexpr bool HAS_LEAST = false;
    static constexpr int PAIRS_OF_LINE = 32 / LANES;  // of the cache: 64 bytes
    const uint16_t* weights;

    Bytes(const Matrix& matrix, int block)
        : weights((const uint16_t*)matrix.weights + (size_t)block * matrix.inputs / 2 * LANES) {}
    const uint16_t* line(int pair) const { return weights + (size_t)pair * LANES; }
    Words operator()(int pair) const { return from_bytes(line(pair)); }
};

struct Nibbles {
    static constexpr bool HAS_LEAST = true;
    static constexpr int PAIRS_OF_LINE = 64 / LANES;
    const uint32_t* weights;

    Nibbles(const Matrix& matrix, int block)
        : weights((const uint32_t*)matrix.weights + (size_t)block * matrix.inputs / 8 * LANES) {}
    const uint32_t* line(int pair) const { return weights + (size_t)(pair / 4) * LANES; }
    Words operator()(int pair) const { return from_nibbles(load<Words>(line(pair)), pair % 4); }
};

// Sums of a tile: totals[r][b] = the products of row r with the outputs of block b. It is a function
// of its own, so that it is compiled once and not for every use of a product.
template <int ROWS, int BLOCKS, class Pairs>
__attribute__((noinline)) void quantised_tile(const Matrix& matrix, int block, const Rows& rows,
                                              int first, Floats (&totals)[ROWS][BLOCKS]) {
    const int pairs = matrix.inputs / 2, groups = pairs / GROUP;
    const Pairs base(matrix, block);
    const size_t block_size = Pairs(matrix, block + 1).weights - base.weights;
    Floats sums[ROWS][BLOCKS] = {};
    for (int group = 0; group < groups; group++) {
        Ints parts[ROWS][BLOCKS] = {};
        const uint32_t* given = rows.pairs + (size_t)first * pairs + group * GROUP;
#pragma GCC unroll 4
        for (int i = 0; i < GROUP; i++)
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++) {
                Pairs at = base;
                at.weights += b * block_size;
                const Words column = at(group * GROUP + i);
                if (i % Pairs::PAIRS_OF_LINE == 0)  // what the tile behind this one begins with
                    __builtin_prefetch(at.line(group * GROUP + i) + BLOCKS * block_size, 0, 2);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++)
                    parts[r][b] = add_integers(parts[r][b], column, given[(size_t)r * pairs + i]);
            }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const size_t place = ((size_t)(block + b) * groups + group) * LANES;
            const Floats scale = widened(matrix.scales + place);
            Floats least{};
            if (Pairs::HAS_LEAST) least = widened(matrix.least + place);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const size_t of_row = (size_t)(first + r) * groups + group;
                Floats part = __builtin_convertvector(parts[r][b], Floats) * scale;
                if (Pairs::HAS_LEAST) part = least * rows.sums[of_row] + part;
                sums[r][b] = part * rows.scales[of_row] + sums[r][b];
            }
        }
    }
    memcpy(totals, sums, sizeof sums);
}

template <int BLOCKS, int MOST_ROWS_OF_TILE, class Pairs, class Use>
inline void quantised_panel(const Matrix& matrix, int block, const Rows& rows, const Use& use) {
    const int tiles = (rows.count + MOST_ROWS_OF_TILE - 1) / MOST_ROWS_OF_TILE;
    for (int t = 0; t < tiles; t++) {
        const Range range = share(rows.count, t, tiles);
        auto run = [&](auto constant) {
            constexpr int ROWS = std::min(decltype(constant)::value, MOST_ROWS_OF_TILE);
            Floats totals[ROWS][BLOCKS];
            quantised_tile<ROWS, BLOCKS, Pairs>(matrix, block, rows, range.begin, totals);
            for (int r = 0; r < ROWS; r++)
                for (int b = 0; b < BLOCKS; b++) use(range.begin + r, b, totals[r][b]);
        };
        switch (range.end - range.begin) {
            case 1: run(std::integral_constant<int, 1>()); break;
            case 2: run(std::integral_constant<int, 2>()); break;
            case 3: run(std::integral_constant<int, 3>()); break;
            case 4: run(std::integral_constant<int, 4>()); break;
            case 5: run(std::integral_constant<int, 5>()); break;
            default: run(std::integral_constant<int, 6>());
        }
    }
}

// Calls use(row, block, totals) for `count` blocks, 4 at once where the rows are few.
template <class Pairs, class Use>
void quantised_panels(const Matrix& matrix, int block, int count, const Rows& rows, const Use& use) {
    const bool is_narrow = rows.count <= MOST_QUANTISED_ROWS / 2;
    for (int done = 0; done < count;) {
        auto shifted = [&, done](int row, int b, Floats totals) { use(row, done + b, totals); };
        const int first = block + done, left = count - done;
        if (is_narrow && left >= 4) {
            quantised_panel<4, MOST_QUANTISED_ROWS / 2, Pairs>(matrix, first, rows, shifted);
            done += 4;
        } else if (left >= 2) {
            quantised_panel<2, MOST_QUANTISED_ROWS, Pairs>(matrix, first, rows, shifted);
            done += 2;
        } else {
            quantised_panel<1, MOST_QUANTISED_ROWS, Pairs>(matrix, first, rows, shifted);
            done += 1;
        }
    }
}

}  // namespace
