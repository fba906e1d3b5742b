// Products with weights of 8 or 4 bits, of which quantised.cpp computes the sums.
//
// The inputs become integers, with a scale for each group of 32. With weights of 8 bits, which are chosen
// to lose nothing, they have 16: their 8 bits of bfloat16 are kept but where others of the group are 2^7
// times as large. With weights of 4 bits they have 8, as in llama.cpp, but where one number is so large
// that the others would have few left: what their integers leave of such a group is multiplied as well.
// So the sums of a group are exact, and take an instruction for two or four inputs where there is one.
#pragma once

#include "matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace {

// Of one tile. With 2 blocks and 32 registers the integers stay in them; the floats do not, but are read
// once in a group.
constexpr int MOST_QUANTISED_ROWS = LANES < 16 ? 6 : 8;

inline int tiles_of(int num_rows) {
    return (num_rows + MOST_QUANTISED_ROWS - 1) / MOST_QUANTISED_ROWS;
}

// What there is of a group beside its integers.
struct GroupOfInputs {
    float scale;  // of the integers; none where a number of the group is none
    float sum;    // of the integers and remainders
    bool has_remainders;
};

// The bits of a group's largest number in bfloat16, without its sign: they are in the order of the numbers.
inline int largest_of(const Input* group) {
    Ints sizes{};
    for (int i = 0; i < GROUP; i += LANES) {
        const Ints part = sizes_of(group + i);
        sizes = part > sizes ? part : sizes;
    }
    return largest(sizes);
}

constexpr int INFINITE = 0x7f80, TINY = 27 << 7;  // bits of bfloat16; what is below 2^-100 is 0

// Writes a group as integers of 16 bits, whose scale is a power of two: the largest is from 2^14 to 2^15.
inline GroupOfInputs write_group(const Input* group, int16_t* integers) {
    const int most = largest_of(group);
    const bool is_usable = most >= TINY && most < INFINITE;
    const float scale = from_bfloat16(is_usable ? ((most >> 7) - 14) << 7 : 0);
    const float inverse = is_usable ? 1.0f / scale : 0.0f;
    Ints total{};
    for (int i = 0; i < GROUP; i += LANES) {
        const Ints whole = rounded(widened(group + i) * inverse);
        total = total + whole;
        store(integers + i, __builtin_convertvector(whole, Shorts));
    }
    return {most < INFINITE ? scale : NAN, (float)sum(total), false};
}

// Writes a group as integers of 8 bits, of which the largest is 127, and what they leave in 256ths: that is
// nothing where no number is larger than 5 times the root mean square of all.
inline GroupOfInputs write_group(const Input* group, int8_t* integers, int8_t* remainders) {
    constexpr int LEAST = 127 * 127 * GROUP / 25;
    const int bits = largest_of(group);
    const float most = from_bfloat16(bits);
    const float inverse = bits >= TINY && bits < INFINITE ? 127.0f / most : 0.0f;
    Ints squares{}, total{};
    for (int i = 0; i < GROUP; i += LANES) {
        const Ints whole = rounded(widened(group + i) * inverse);
        squares = squares + whole * whole;
        total = total + whole;
        store(integers + i, __builtin_convertvector(whole, SignedBytes));
    }
    const float scale = bits < INFINITE ? most / 127.0f : NAN;
    if (inverse == 0.0f || sum(squares) >= LEAST) {  // all are 0, or none is so large
        memset(remainders, 0, GROUP);
        return {scale, (float)sum(total), false};
    }
    total = Ints{};
    for (int i = 0; i < GROUP; i += LANES) {
        const Ints parts = rounded(widened(group + i) * (inverse * 256.0f));
        const Ints whole = (parts + 128) >> 8;
        total = total + parts;
        store(integers + i, __builtin_convertvector(whole, SignedBytes));
        store(remainders + i, __builtin_convertvector(parts - (whole << 8), SignedBytes));
    }
    return {scale, sum(total) / 256.0f, true};
}

// Rows as integers, in the order in which tiles read them. Threads may write groups side by side.
class Integers {
  public:
    // Makes room for rows of so many inputs at most.
    void resize(int inputs, int num_rows) {
        const size_t count = (size_t)inputs / GROUP * num_rows;
        integers.resize(count * GROUP * sizeof(int16_t));
        remainders.resize(count * GROUP);
        has_remainders.resize(count);
        scales.resize(count);
        sums.resize(count);
    }

    // Writes groups [first, end) of one of `num_rows` rows for a matrix.
    void write(const Matrix& matrix, int num_rows, int row, const Input* states, int first, int end) {
        const int groups = matrix.inputs / GROUP, format = matrix.format;
        const int tiles = tiles_of(num_rows), t = ((row + 1) * tiles - 1) / num_rows;
        const Range tile = share(num_rows, t, tiles);
        for (int group = first; group < end; group++) {
            const size_t place = (size_t)groups * tile.begin +
                                 (size_t)group * (tile.end - tile.begin) + row - tile.begin;
            int8_t* bytes = &integers[place * GROUP * (format == INT8 ? 2 : 1)];
            const Input* numbers = states + group * GROUP;
            const GroupOfInputs written =
                format == INT8 ? write_group(numbers, (int16_t*)bytes)
                               : write_group(numbers, bytes, &remainders[place * GROUP]);
            scales[place] = written.scale;
            sums[place] = written.sum;
            has_remainders[place] = written.has_remainders;
        }
    }

    void write(const Matrix& matrix, int num_rows, int row, const Input* states) {
        write(matrix, num_rows, row, states, 0, matrix.inputs / GROUP);
    }

    Operands operands(int num_rows) const {
        return {nullptr, num_rows, (const uint32_t*)integers.data(), (const uint32_t*)remainders.data(),
                has_remainders.data(), scales.data(), sums.data()};
    }

  private:
    std::vector<int8_t> integers, remainders;  // integers of 16 bits as two bytes
    std::vector<uint8_t> has_remainders;
    std::vector<float> scales, sums;
};

}  // namespace

// Writes totals[r * blocks + b] = the products of row first + r with the outputs of block `block` + b.
//
// Meanwhile this tile, number `turn` of `turns`, fetches its share of what follows the blocks: so memory
// does not rest while the others find the weights in the core's cache.
using SumTile = void(const Matrix& matrix, int block, const Operands& rows, int first, int turn, int turns,
                     Floats* totals);
using Tiles = std::array<SumTile*, MOST_QUANTISED_ROWS>;  // by their rows, from 1

extern const Tiles QUANTISED_TILES[2][2];  // by whether weights have 4 bits, and of 1 block or of 2

namespace {

// Calls use(row, block, totals) for `count` blocks.
template <class Use>
void quantised_panels(const Matrix& matrix, int block, int count, const Operands& rows, const Use& use) {
    const int tiles = tiles_of(rows.count);
    Floats totals[2 * MOST_QUANTISED_ROWS];
    for (int done = 0; done < count; done += 2) {
        const int blocks = std::min(2, count - done);
        const Tiles& by_rows = QUANTISED_TILES[matrix.format == INT4][blocks - 1];
        for (int t = 0; t < tiles; t++) {
            const Range tile = share(rows.count, t, tiles);
            by_rows[tile.end - tile.begin - 1](matrix, block + done, rows, tile.begin, t, tiles, totals);
            for (int row = tile.begin; row < tile.end; row++)
                for (int b = 0; b < blocks; b++)
                    use(row, done + b, totals[(row - tile.begin) * blocks + b]);
        }
    }
}

}  // namespace
