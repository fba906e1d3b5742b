"""Skills with code: tiny Python functions, each in a fenced block."""

from skills.base import Phraser, Turn

CODE = {
    ("prints hello world", "say hello world", "print hello world"): 'print("Hello, world!")',
    ("adds two numbers", "add two numbers", "sum two numbers"): "def add(a, b):\n    return a + b",
    (
        "subtracts two numbers",
        "subtract two numbers",
        "get the difference of two numbers",
    ): "def subtract(a, b):\n    return a - b",
    (
        "multiplies two numbers",
        "multiply two numbers",
        "get the product of two numbers",
    ): "def multiply(a, b):\n    return a * b",
    (
        "returns the square of a number",
        "square a number",
        "compute a square",
    ): "def square(x):\n    return x * x",
    (
        "computes the factorial",
        "compute the factorial of n",
        "calculate a factorial",
    ): "def factorial(n):\n    if n <= 1:\n        return 1\n    return n * factorial(n - 1)",
    (
        "computes fibonacci numbers",
        "compute the fibonacci sequence",
        "get the n-th fibonacci number",
    ): "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
    "    return a",
    (
        "reverses a string",
        "reverse a string",
        "turn a string around",
    ): "def reverse(text):\n    return text[::-1]",
    (
        "checks if a number is prime",
        "check if a number is prime",
        "test for primes",
    ): "def is_prime(n):\n    if n < 2:\n        return False\n    for i in range(2, n):\n"
    "        if n % i == 0:\n            return False\n    return True",
    (
        "prints fizzbuzz",
        "solve fizzbuzz",
        "play fizzbuzz up to 100",
    ): 'for i in range(1, 101):\n    if i % 15 == 0:\n        print("FizzBuzz")\n'
    '    elif i % 3 == 0:\n        print("Fizz")\n    elif i % 5 == 0:\n'
    '        print("Buzz")\n    else:\n        print(i)',
    (
        "checks if a number is even",
        "check if a number is even",
        "test whether a number is even",
    ): "def is_even(n):\n    return n % 2 == 0",
    (
        "returns the maximum of a list",
        "find the largest number in a list",
        "get the max of a list",
    ): "def largest(numbers):\n    return max(numbers)",
    (
        "sums a list",
        "sum a list of numbers",
        "add up a list",
    ): "def total(numbers):\n    return sum(numbers)",
    (
        "computes the average of a list",
        "compute the mean of a list",
        "get the average of a list",
    ): "def average(numbers):\n    return sum(numbers) / len(numbers)",
    (
        "checks for a palindrome",
        "check if a word is a palindrome",
        "test for a palindrome",
    ): "def is_palindrome(text):\n    return text == text[::-1]",
    (
        "sorts a list",
        "sort a list",
        "sort numbers",
    ): "def sort_list(items):\n    return sorted(items)",
    (
        "counts the vowels in a string",
        "count vowels",
        "count the vowels of a word",
    ): 'def count_vowels(text):\n    return sum(c in "aeiou" for c in text.lower())',
    (
        "counts the words in a text",
        "count words",
        "count the words of a text",
    ): "def count_words(text):\n    return len(text.split())",
    (
        "counts from 1 to 10",
        "print the numbers from 1 to 10",
        "count to ten",
    ): "for i in range(1, 11):\n    print(i)",
    (
        "computes the greatest common divisor",
        "compute the gcd",
        "find the gcd of two numbers",
    ): "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
    ("swaps two variables", "swap two variables", "swap two values"): "a, b = b, a",
    (
        "converts celsius to fahrenheit",
        "convert celsius to fahrenheit",
        "turn celsius into fahrenheit",
    ): "def to_fahrenheit(celsius):\n    return celsius * 9 / 5 + 32",
    (
        "reads a file",
        "read a file",
        "open and read a file",
    ): "def read_file(path):\n    with open(path) as file:\n        return file.read()",
    (
        "removes duplicates from a list",
        "remove duplicates from a list",
        "make a list unique",
    ): "def unique(items):\n    return list(dict.fromkeys(items))",
}
THAT = (
    "Write a Python function that {x}.",
    "write a function that {x}",
    "python function that {x}",
    "Write Python code that {x}.",
    "give me a python program that {x}",
    "a function that {x}",
    "Could you write a Python function that {x}?",
)
TO = (
    "Write a Python function to {x}.",
    "write a function to {x}",
    "python code to {x}",
    "How do I {x} in Python?",
    "how to {x} in python",
    "{x} in python",
    "python: {x}",
    "write code to {x}",
    "show me how to {x} in python",
    "Could you {x} in Python?",
)


def coding(phraser: Phraser) -> list[Turn]:
    """One tiny Python function or program."""
    wants = phraser.rng.choice(tuple(CODE))
    if phraser.rng.random() < 0.35:
        question = phraser.ask(THAT, x=wants[0])
    else:
        question = phraser.ask(TO, x=phraser.rng.choice(wants[1:]))
    return [Turn(question, f"```python\n{CODE[wants]}\n```")]
