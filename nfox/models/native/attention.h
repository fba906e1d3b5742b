// Attention of the nodes of trees over what was read before them, by blocks of keys.
//
// The keys of a block have one largest score of their own, and what a query gathers of each block is put
// together block after block. Blocks are of positions, and a tree's path counts as if it were the text:
// so a query gathers the same to the last bit whatever stands beside it, whichever threads share its keys.
#pragma once

#include "decoder.h"
#include "product.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

constexpr int BLOCK = 256;        // keys, whose scores find room in a core's first cache
constexpr int MOST_QUERIES = 48;  // of a piece, whose scores find room there
constexpr int LEAST_QUERIES = 6;  // of a piece, which transposes all of its keys for itself
constexpr int MANY_PIECES = 8;    // for each thread, from which on no keys need be split
constexpr size_t MOST_SUMS_KEPT = 1 << 22;  // floats that runs leave of all queries and blocks

// A sequence whose nodes are rows of a forward from `first` on.
struct Tree {
    const Sequence& sequence;
    int first;
    bool is_chain;
    std::vector<std::vector<int>> paths;  // from the root to every node, where it is no chain

    Tree(const Sequence& sequence, int first) : sequence(sequence), first(first), is_chain(true) {
        const int32_t* parents = sequence.parents;
        for (int node = 0; node < sequence.num_nodes; node++) is_chain &= parents[node] == node - 1;
        if (is_chain) return;
        paths.assign(sequence.num_nodes, {});
        for (int node = 0; node < sequence.num_nodes; node++) {
            if (parents[node] >= 0) paths[node] = paths[parents[node]];
            paths[node].push_back(node);
        }
    }

    int depth(int node) const { return is_chain ? node : (int)paths[node].size() - 1; }

    // The last row that a node of a chain attends to.
    int last_seen(int node) const {
        const int count = sequence.num_nodes;
        return node < count - sequence.num_joint ? node : count - 1;
    }

    int position(int node) const { return sequence.past_length + depth(node); }
};

// Queries of one key head, which are computed at once: query q is head q % group of node q / group.
struct Piece {
    const Tree& tree;
    int key_head, group, window;
    Range queries;
    int begin, end;  // of the keys that any of them attends to; begin is a multiple of LANES

    Piece(const Tree& tree, int key_head, int group, int window, Range queries)
        : tree(tree), key_head(key_head), group(group), window(window), queries(queries) {
        const Sequence& s = tree.sequence;
        const int first = s.past_length + (tree.is_chain ? node_of(0) : 0);
        begin = window ? std::max(0, first - window + 1) / LANES * LANES : 0;
        end = s.past_length + (tree.is_chain ? tree.last_seen(node_of(count() - 1)) + 1 : s.num_nodes);
    }

    int count() const { return queries.end - queries.begin; }
    int node_of(int i) const { return (queries.begin + i) / group; }

    // Scores are computed span by span. A span is one block of keys. The last span of a tree goes from the
    // block of its root to its last node: siblings share a position but have a row each.
    int spans() const { return last_span() - begin / BLOCK + 1; }
    Range span(int i) const {
        const int block = begin / BLOCK + i;
        return {std::max(begin, block * BLOCK), block == last_span() ? end : (block + 1) * BLOCK};
    }

    // The keys that a query attends to.
    Range seen(int i) const {
        const int position = tree.position(node_of(i));
        const int last = tree.is_chain ? tree.sequence.past_length + tree.last_seen(node_of(i)) : position;
        return {window ? std::max(0, position - window + 1) : 0, last + 1};
    }

  private:
    int last_span() const { return (tree.is_chain ? end - 1 : tree.sequence.past_length) / BLOCK; }
};

// What a query has gathered of some keys: the sum of values by weights e^(score - most), the sum of the
// weights lane by lane, and most, of which every lane is the same.
struct Gathered {
    float* numbers;  // [width + 2 * LANES]
    int width;       // of a head

    float* total() const { return numbers + width; }
    float* most() const { return numbers + width + LANES; }

    // Adds what the query has gathered of the keys that follow. One function, whoever calls it: compiled
    // twice, the sum of two products might be rounded in two ways.
    [[gnu::noinline]] void add(const Gathered& next) const {
        const Floats before = load<Floats>(most()), after = load<Floats>(next.most());
        const bool is_empty = sum(load<Floats>(next.total())) == 0;  // not where a score is no number
        if (after[0] == -INFINITY && is_empty) return;  // it attends to none of them
        const Floats both = larger(before, after);
        const Floats kept = exponential(before - both), added = exponential(after - both);
        for (int i = 0; i < width + LANES; i += LANES)
            store(numbers + i, load<Floats>(numbers + i) * kept + load<Floats>(next.numbers + i) * added);
        store(most(), both);
    }
};

// What an attention needs besides queries. A thread that runs forwards keeps it.
struct AttentionSpace {
    std::vector<float> kept;    // what was gathered of every block, until all runs of a piece are done
    std::vector<int> num_done;  // runs, of every piece
    Integers integers;          // of what is attended to, where heads are whole groups
};

// The attention of all trees of a forward.
class Attention {
  public:
    // Queries lie as [key head][row][head of its group], what they attend to as [row][head].
    Attention(const Decoder& decoder, const std::vector<Tree>& trees, int rows, const Input* queries,
              Input* attended, AttentionSpace& space, int threads)
        : d(decoder), trees(trees), rows(rows), group(decoder.num_heads / decoder.num_key_heads),
          queries(queries), attended(attended), space(space) {
        int pieces = 0;
        size_t sums = 0;
        for (const Tree& tree : trees) {
            plans.push_back(planned(tree, threads));
            Plan& plan = plans.back();
            plan.first_piece = pieces;
            pieces += plan.pieces * d.num_key_heads;
            if (plan.runs == 1) continue;
            plan.first_sum = sums;
            sums += sums_of(tree);
        }
        if (space.kept.size() < sums) space.kept.resize(sums);
        space.num_done.assign(pieces, 0);
        space.integers.resize(d.num_heads * d.head_dim, rows);
    }

    // Computes a thread's share of a layer.
    void run(const Layer& layer, int index, int thread, int threads) {
        int units = 0;
        for (const Plan& plan : plans) units += plan.pieces * plan.runs * d.num_key_heads;
        const Range mine = share(units, thread, threads);
        int before = 0;
        for (size_t t = 0; t < trees.size(); t++) {
            const Plan& plan = plans[t];
            const int count = plan.pieces * plan.runs * d.num_key_heads;
            const Range range{std::max(mine.begin - before, 0), std::min(mine.end - before, count)};
            for (int unit = range.begin; unit < range.end; unit++) {
                const int number = unit / plan.runs, run = unit % plan.runs;
                const int num_queries = trees[t].sequence.num_nodes * group;
                const Piece piece(trees[t], number / plan.pieces, group,
                                  trees[t].sequence.windows[layer.kind],
                                  share(num_queries, number % plan.pieces, plan.pieces));
                if (plan.runs == 1) attend(layer, index, piece);
                else
                    attend_run(layer, index, piece, plan, run, space.num_done[plan.first_piece + number]);
            }
            before += count;
        }
    }

    // What a layer's `out` multiplies its weights with, once all threads have run.
    Operands result(const Layer& layer) const {
        if (!writes_integers(layer)) return operands_for(layer.out, attended, rows);
        return operands_for(layer.out, attended, rows, space.integers);
    }

  private:
    // How a tree's queries are shared out: in pieces of each key head, and the keys of each in runs.
    struct Plan {
        int pieces, runs, first_piece;
        size_t first_sum;  // of what is kept of the tree's blocks
    };

    const Decoder& d;
    const std::vector<Tree>& trees;
    const int rows, group;
    const Input* queries;
    Input* attended;
    AttentionSpace& space;
    std::vector<Plan> plans;

    size_t stride() const { return d.head_dim + 2 * LANES; }

    // Blocks of keys up to the last one of a tree.
    static int blocks_of(const Tree& tree) {
        return (tree.sequence.past_length + tree.sequence.num_nodes - 1) / BLOCK + 1;
    }

    size_t sums_of(const Tree& tree) const {
        return (size_t)d.num_heads * tree.sequence.num_nodes * blocks_of(tree) * stride();
    }

    Plan planned(const Tree& tree, int threads) const {
        const int num_queries = tree.sequence.num_nodes * group;
        Plan plan{(num_queries + MOST_QUERIES - 1) / MOST_QUERIES, 1, 0, 0};
        const int units = plan.pieces * d.num_key_heads;
        if (units % threads == 0 || units * (int)trees.size() >= MANY_PIECES * threads) return plan;
        const int runs = threads / std::gcd(units, threads);
        if (runs <= blocks_of(tree) && sums_of(tree) <= MOST_SUMS_KEPT) {
            plan.runs = runs;
            return plan;
        }
        // There are few keys, or too many to keep what runs gather of them: rather some more pieces than a thread that waits for the last one.
        const int least = rows * group * d.num_key_heads / threads;  // queries for each thread
        plan.pieces = std::max(plan.pieces, num_queries / std::max(1, least));
        for (int more = plan.pieces; num_queries >= more * LEAST_QUERIES; more++)
            if (more * d.num_key_heads % threads == 0) {
                plan.pieces = more;
                break;
            }
        return plan;
    }

    // A piece's place for what its queries gather of a block.
    Gathered kept_of(const Piece& piece, const Plan& plan, int query, int block) {
        const int num_queries = piece.tree.sequence.num_nodes * group;
        const size_t row = (size_t)piece.key_head * num_queries + piece.queries.begin + query;
        return {&space.kept[plan.first_sum + (row * blocks_of(piece.tree) + block) * stride()], d.head_dim};
    }

    // Attends to all keys.
    void attend(const Layer& layer, int index, const Piece& piece) {
        static thread_local std::vector<float> numbers;
        numbers.resize(piece.count() * stride());
        auto gathered = [&](int i) { return Gathered{&numbers[i * stride()], d.head_dim}; };
        const int first = piece.begin / BLOCK;
        attend_spans(layer, index, piece, {0, piece.spans()}, [&](int i, int block, const Gathered& part) {
            if (block > first) gathered(i).add(part);
            else memcpy(gathered(i).numbers, part.numbers, stride() * sizeof(float));
        });
        for (int i = 0; i < piece.count(); i++) leave(layer, piece, i, gathered(i));
    }

    // Attends to one run of the keys. Who is the last one puts together what was gathered of all.
    void attend_run(const Layer& layer, int index, const Piece& piece, const Plan& plan, int run,
                    int& num_done) {
        attend_spans(layer, index, piece, share(piece.spans(), run, plan.runs),
                     [&](int i, int block, const Gathered& part) {
                         memcpy(kept_of(piece, plan, i, block).numbers, part.numbers,
                                stride() * sizeof(float));
                     });
        if (__atomic_add_fetch(&num_done, 1, __ATOMIC_ACQ_REL) < plan.runs) return;
        num_done = 0;
        const int first = piece.begin / BLOCK, last = (piece.end - 1) / BLOCK;
        for (int i = 0; i < piece.count(); i++) {
            const Gathered all = kept_of(piece, plan, i, first);
            for (int block = first + 1; block <= last; block++) all.add(kept_of(piece, plan, i, block));
            leave(layer, piece, i, all);
        }
    }

    bool writes_integers(const Layer& layer) const {
        return layer.out.format != BFLOAT16 && d.head_dim % GROUP == 0;
    }

    // Writes what a query attends to.
    void leave(const Layer& layer, const Piece& piece, int i, const Gathered& gathered) {
        const float factor = 1.0f / sum(load<Floats>(gathered.total()));
        const int row = piece.tree.first + piece.node_of(i);
        const int head = piece.key_head * group + (piece.queries.begin + i) % group;
        Input* states = attended + (size_t)row * d.num_heads * d.head_dim;
        for (int n = 0; n < d.head_dim; n += LANES)
            put(states + head * d.head_dim + n, load<Floats>(gathered.numbers + n) * factor);
        const int groups = d.head_dim / GROUP;
        if (writes_integers(layer))
            space.integers.write(layer.out, rows, row, states, head * groups, (head + 1) * groups);
    }

    // Calls use(i, block, what query i has gathered of a block) for all blocks of some spans.
    template <class Use>
    void attend_spans(const Layer& layer, int index, const Piece& piece, Range spans, const Use& use) {
        static thread_local std::vector<float> scores, numbers;
        const Sequence& s = piece.tree.sequence;
        const size_t head = (size_t)piece.key_head * s.capacity * d.head_dim;
        const uint16_t *keys = s.keys[index] + head, *values = s.values[index] + head;
        const int most_keys = BLOCK + (piece.tree.is_chain ? 0 : s.num_nodes);
        const int row_size = (most_keys + LANES - 1) / LANES * LANES;
        scores.resize((size_t)piece.count() * row_size);
        numbers.resize(piece.count() * stride());
        for (int number = spans.begin; number < spans.end; number++) {
            const Range span = piece.span(number);
            score(layer, keys, values, piece, span, row_size, scores.data());
            const bool holds_nodes = span.end > s.past_length;
            for (int i = 0; i < piece.count() && holds_nodes && !piece.tree.is_chain; i++)
                order_by_path(piece, i, &scores[(size_t)i * row_size] + s.past_length - span.begin);
            for (Range block = span; block.begin < span.end; block.begin = block.end) {
                const int number_of_block = block.begin / BLOCK;
                block.end = std::min(span.end, (number_of_block + 1) * BLOCK);
                const int first = block.begin - span.begin;
                for (int i = 0; i < piece.count(); i++)
                    soften(&scores[(size_t)i * row_size + first], block, piece.seen(i),
                           Gathered{&numbers[i * stride()], d.head_dim});
                gather(piece, values, keys, block, row_size, &scores[first], numbers.data());
                for (int i = 0; i < piece.count(); i++)
                    use(i, number_of_block, Gathered{&numbers[i * stride()], d.head_dim});
            }
        }
    }

    // The scores of all keys of a span, LANES keys side by side. Meanwhile their values are fetched, and
    // in gather the next block's keys: so memory does not rest, and a query over a long text takes a third
    // less. This, soften and gather are functions of their own: in one GCC keeps too few numbers in
    // registers, and takes half as long again.
    [[gnu::noinline]] void score(const Layer& layer, const uint16_t* keys, const uint16_t* values,
                                 const Piece& piece, Range span, int row_size, float* scores) {
        static thread_local std::vector<uint32_t> columns;
        const int pairs = d.head_dim / 2;
        columns.resize((size_t)pairs * LANES * MOST_BLOCKS);
        const size_t row = (size_t)piece.key_head * rows + piece.tree.first;
        const size_t first = row * group + piece.queries.begin;
        const Factor* factors = (const Factor*)(queries + first * d.head_dim);
        for (int key = span.begin; key < span.end; key += LANES * MOST_BLOCKS) {
            const int blocks = std::min(MOST_BLOCKS, (span.end - key + LANES - 1) / LANES);
            for (int b = 0; b < blocks; b++)
                turn(keys, key + b * LANES, span.end, &columns[(size_t)b * pairs * LANES]);
            const uint32_t* next = (const uint32_t*)(values + (size_t)key * d.head_dim);
            panel(columns.data(), (size_t)pairs * LANES, blocks, factors, pairs, piece.count(), next,
                  [&](int row, int b, Floats totals) {
                      totals = totals * layer.scale;
                      if (layer.cap) totals = layer.cap * hyperbolic_tangent(totals / layer.cap);
                      store(scores + (size_t)row * row_size + key - span.begin + b * LANES, totals);
                  });
        }
    }

    // Writes LANES keys, whose pairs of numbers then stand side by side.
    void turn(const uint16_t* keys, int first, int end, uint32_t* columns) {
        const int pairs = d.head_dim / 2, count = std::min(LANES, end - first);
        const uint32_t* rows_of = (const uint32_t*)keys + (size_t)first * pairs;
        if (count == LANES && pairs % LANES == 0) {
            for (int pair = 0; pair < pairs; pair += LANES)
                transpose(rows_of + pair, pairs, columns + (size_t)pair * LANES);
            return;
        }
        memset(columns, 0, sizeof(uint32_t) * pairs * LANES);
        for (int key = 0; key < count; key++)
            for (int pair = 0; pair < pairs; pair++)
                columns[pair * LANES + key] = rows_of[(size_t)key * pairs + pair];
    }

    // Puts the scores of a query's path where they would stand if the path were all there is.
    void order_by_path(const Piece& piece, int i, float* scores) {
        const std::vector<int>& path = piece.tree.paths[piece.node_of(i)];
        for (size_t n = 0; n < path.size(); n++) scores[n] = scores[path[n]];  // path[n] >= n
    }

    // Turns a query's scores of a block into weights, those of keys that it does not attend to into 0.
    [[gnu::noinline]] void soften(float* scores, Range block, Range seen, const Gathered& gathered) {
        const int count = block.end - block.begin, size = (count + LANES - 1) / LANES * LANES;
        const int first = std::clamp(seen.begin - block.begin, 0, count);
        const int end = std::clamp(seen.end - block.begin, first, count);
        for (int i = 0; i < first; i++) scores[i] = -INFINITY;
        for (int i = end; i < size; i++) scores[i] = -INFINITY;
        Floats most = all(-INFINITY), total{};
        for (int i = 0; i < size; i += LANES) most = larger(most, load<Floats>(scores + i));
        most = all(largest(most));
        const Floats base = most[0] == -INFINITY ? Floats{} : most;
        for (int i = 0; i < size; i += LANES) {
            const Floats weights = exponential(load<Floats>(scores + i) - base);
            store(scores + i, weights);
            total = total + weights;
        }
        store(gathered.total(), total);
        store(gathered.most(), most);
    }

    // Sums the values of a block by their weights, key after key, and fetches the keys of the next.
    [[gnu::noinline]] void gather(const Piece& piece, const uint16_t* values, const uint16_t* keys,
                                  Range block, int row_size, const float* weights, float* numbers) {
        const int tiles = (piece.count() + 3) / 4;
        for (int t = 0; t < tiles; t++) {
            const Range range = share(piece.count(), t, tiles);
            for (int first = 0; first < d.head_dim;) {
                auto run = [&](auto num_rows, auto num_blocks) {
                    gather_tile<decltype(num_rows)::value, decltype(num_blocks)::value>(
                        piece, values + first, t ? nullptr : keys + first, block, range.begin, row_size,
                        weights, numbers + first);
                    first += decltype(num_blocks)::value * LANES;
                };
                auto by_rows = [&](auto num_blocks) {
                    switch (range.end - range.begin) {
                        case 1: return run(std::integral_constant<int, 1>(), num_blocks);
                        case 2: return run(std::integral_constant<int, 2>(), num_blocks);
                        case 3: return run(std::integral_constant<int, 3>(), num_blocks);
                        default: return run(std::integral_constant<int, 4>(), num_blocks);
                    }
                };
                constexpr int MANY = LANES < 16 ? 2 : 4;  // as many as find room in registers
                if (d.head_dim - first >= MANY * LANES) by_rows(std::integral_constant<int, MANY>());
                else by_rows(std::integral_constant<int, 1>());
            }
        }
    }

    // Writes what queries from `from` on gather of so many vectors of the values. No keys: none is fetched.
    template <int ROWS, int VECTORS>
    void gather_tile(const Piece& piece, const uint16_t* values, const uint16_t* keys, Range block,
                     int from, int row_size, const float* weights, float* numbers) {
        Floats totals[ROWS][VECTORS] = {};
        const Tree& tree = piece.tree;
        const int past = tree.sequence.past_length;
        const int last_seen = tree.is_chain ? tree.last_seen(piece.node_of(from + ROWS - 1)) : -1;
        const int end = std::min(block.end, past + last_seen + 1);
        weights += (size_t)from * row_size;
        for (int key = block.begin; key < end; key++) {
            if (keys)
                for (int b = 0; b < VECTORS; b += 2)
                    __builtin_prefetch(keys + (size_t)(key + BLOCK) * d.head_dim + b * LANES, 0, 2);
            for (int b = 0; b < VECTORS; b++) {
                const Floats value = widened(values + (size_t)key * d.head_dim + b * LANES);
                for (int r = 0; r < ROWS; r++)
                    totals[r][b] = value * weights[(size_t)r * row_size + key - block.begin] + totals[r][b];
            }
        }
        for (int r = 0; r < ROWS && !tree.is_chain; r++) {
            const std::vector<int>& path = tree.paths[piece.node_of(from + r)];
            const int last = std::min((int)path.size(), block.end - past);
            for (int i = std::max(0, block.begin - past); i < last; i++)
                for (int b = 0; b < VECTORS; b++) {
                    const size_t key = past + path[i];
                    const Floats value = widened(values + key * d.head_dim + b * LANES);
                    const float weight = weights[(size_t)r * row_size + past + i - block.begin];
                    totals[r][b] = value * weight + totals[r][b];
                }
        }
        for (int r = 0; r < ROWS; r++)
            for (int b = 0; b < VECTORS; b++)
                store(numbers + (from + r) * stride() + b * LANES, totals[r][b]);
    }
};

}  // namespace
