// Products with weights of 8 or 4 bits.
//
// The inputs become integers, with a scale for each group of 32. With weights of 8 bits, which are chosen
// to lose nothing, they have 16: their 8 bits of bfloat16 are kept but where others of the group are 2^7
// times as large. With weights of 4 bits they have 8, as in llama.cpp, but where one number is so large
// that the others would have few left: what their integers leave of such a group is multiplied as well.
// So the sums of a group are exact, and take an instruction for two or four inputs where there is one.
#pragma once

#include "matrix.h"

#include <algorithm>
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
    if (sum(squares) >= LEAST) {
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

    Rows rows(int num_rows) const {
        return {nullptr, num_rows, (const uint32_t*)integers.data(), (const uint32_t*)remainders.data(),
                has_remainders.data(), scales.data(), sums.data()};
    }

  private:
    std::vector<int8_t> integers, remainders;  // integers of 16 bits as two bytes
    std::vector<uint8_t> has_remainders;
    std::vector<float> scales, sums;
};

// The weights of a block are multiplied in columns, a word of weights for every output with a word of
// inputs: STEP columns in one go, which take so many bytes of memory in both formats.
constexpr int STEP = 4, STEP_SIZE = 2 * STEP * LANES;
constexpr int UNROLLED = LANES < 16 ? 1 : 4;  // steps; with few registers more are spilled

struct Bytes {
    static constexpr bool HAS_LEAST = false, HAS_REMAINDERS = false;
    static constexpr int COLUMNS = GROUP / 2;  // of a group

    static Words column(const char* step, int i) {
        return from_bytes((const uint16_t*)step + i * LANES);
    }
    static Ints add(Ints total, Words column, uint32_t inputs) {
        return add_pairs(total, column, inputs);
    }
};

struct Nibbles {
    static constexpr bool HAS_LEAST = true, HAS_REMAINDERS = true;
    static constexpr int COLUMNS = GROUP / 4;

    static Words column(const char* step, int i) {
        return load<Words>(step + i / 2 * 4 * LANES) >> 4 * (i % 2) & 0x0f0f0f0f;
    }
    static Ints add(Ints total, Words column, uint32_t inputs) {
        return add_bytes(total, column, inputs);
    }
};

// Adds the products of a group's weights and inputs to parts[r][b], of row r and block b, and meanwhile
// fetches as many weights from `next`, where that is not null.
template <class Weights, int ROWS, int BLOCKS, int CHAINS>
[[gnu::always_inline]] inline void add_group(const char* weights, size_t block_size,
                                             const uint32_t* inputs, const char* next,
                                             Ints (&parts)[ROWS][BLOCKS][CHAINS]) {
    constexpr int COLUMNS = Weights::COLUMNS, COLUMNS_OF_LINE = 64 * STEP / STEP_SIZE;
#pragma GCC unroll UNROLLED
    for (int first = 0; first < COLUMNS; first += STEP, weights += STEP_SIZE, next += STEP_SIZE)
#pragma GCC unroll 4
        for (int i = 0; i < STEP; i++) {
            Words columns[BLOCKS];
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++)
                columns[b] = Weights::column(weights + b * block_size, i);
            if (i % COLUMNS_OF_LINE == 0)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
                    __builtin_prefetch(next + b * block_size + i * STEP_SIZE / STEP);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++) {
                    Ints& part = parts[r][b][i % CHAINS];
                    part = Weights::add(part, columns[b], inputs[r * COLUMNS + first + i]);
                }
        }
}

// Sums of a tile: totals[r][b] = the products of row r with the outputs of block b. It is a function
// of its own, so that it is compiled once and not for every use of a product.
//
// Meanwhile this tile, number `turn` of `turns`, fetches its share of what follows the panel: so
// memory does not rest while the others find the weights in the core's cache.
template <int ROWS, int BLOCKS, class Weights>
__attribute__((noinline)) void quantised_tile(const Matrix& matrix, int block, const Rows& rows,
                                              int first, int turn, int turns,
                                              Floats (&totals)[ROWS][BLOCKS]) {
    constexpr int CHAINS = ROWS * BLOCKS < 8 ? 2 : 1;  // an instruction waits for the one before it
    constexpr int GROUP_SIZE = Weights::COLUMNS / STEP * STEP_SIZE;
    const int groups = matrix.inputs / GROUP;
    const size_t block_size = (size_t)groups * GROUP_SIZE;
    const char* panel = (const char*)matrix.weights + block * block_size;
    Floats sums[ROWS][BLOCKS] = {};
    for (int group = 0; group < groups; group++) {
        const size_t place = (size_t)groups * first + group * ROWS;
        const int fetched = (turn * groups + group) / turns;
        const char* weights = panel + (size_t)group * GROUP_SIZE;
        const char* next = panel + BLOCKS * block_size + (size_t)fetched * GROUP_SIZE;
        Ints parts[ROWS][BLOCKS][CHAINS] = {};
        add_group<Weights>(weights, block_size, rows.integers + place * Weights::COLUMNS, next, parts);
        float unit = 1.0f;  // of parts
        bool has_remainders = false;
        for (int r = 0; r < ROWS; r++) has_remainders |= rows.has_remainders[place + r];
        if (Weights::HAS_REMAINDERS && has_remainders) {
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 2
                    for (int c = 0; c < CHAINS; c++) parts[r][b][c] = parts[r][b][c] << 8;
            add_group<Weights>(weights, block_size, rows.remainders + place * Weights::COLUMNS, next,
                               parts);
            unit = 1 / 256.0f;
        }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const size_t of_block = ((size_t)(block + b) * groups + group) * LANES;
            const size_t of_next = ((size_t)(block + BLOCKS + b) * groups + fetched) * LANES;
            const Floats scale = from_half_precision(matrix.scales + of_block) * unit;
            __builtin_prefetch(matrix.scales + of_next);
            Floats least{};
            if (Weights::HAS_LEAST) {
                least = from_half_precision(matrix.least + of_block);
                __builtin_prefetch(matrix.least + of_next);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                Ints whole = parts[r][b][0];
                if (CHAINS > 1) whole = whole + parts[r][b][CHAINS - 1];
                Floats part = __builtin_convertvector(whole, Floats) * scale;
                if (Weights::HAS_LEAST) part = least * rows.sums[place + r] + part;
                sums[r][b] = part * rows.scales[place + r] + sums[r][b];
            }
        }
    }
    memcpy(totals, sums, sizeof sums);
}

template <int BLOCKS, class Weights, class Use>
inline void quantised_panel(const Matrix& matrix, int block, const Rows& rows, const Use& use) {
    const int tiles = tiles_of(rows.count);
    for (int t = 0; t < tiles; t++) {
        const Range tile = share(rows.count, t, tiles);
        auto run = [&](auto constant) {
            constexpr int ROWS = decltype(constant)::value;
            Floats totals[ROWS][BLOCKS];
            quantised_tile<ROWS, BLOCKS, Weights>(matrix, block, rows, tile.begin, t, tiles, totals);
            for (int r = 0; r < ROWS; r++)
                for (int b = 0; b < BLOCKS; b++) use(tile.begin + r, b, totals[r][b]);
        };
        with_constant<MOST_QUANTISED_ROWS>(tile.end - tile.begin, run);
    }
}

// Calls use(row, block, totals) for `count` blocks.
template <class Weights, class Use>
void quantised_panels(const Matrix& matrix, int block, int count, const Rows& rows, const Use& use) {
    for (int done = 0; done < count; done += 2) {
        auto shifted = [&, done](int row, int b, Floats totals) { use(row, done + b, totals); };
        if (count - done >= 2) quantised_panel<2, Weights>(matrix, block + done, rows, shifted);
        else quantised_panel<1, Weights>(matrix, block + done, rows, shifted);
    }
}

}  // namespace
