"""Twenty questions of several kinds, for comparisons on a real model."""

PROMPTS = [
    "Why is the sky blue? Answer in two sentences.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Translate into French: The train leaves at nine o'clock tomorrow morning.",
    "List five things that one should pack for a week in the mountains.",
    "Who wrote the play Hamlet, and what is it about?",
    "Write a short poem about the sea in winter.",
    "What is 17 times 23? Show the steps.",
    "Explain to a child what a black hole is.",
    "Summarise in one sentence: The meeting was moved from Monday to Thursday because two of the "
    "five members were ill, and the room was taken by another group until Wednesday evening.",
    "Give me a recipe for pancakes with three ingredients.",
    "Write a C function that reverses a string in place.",
    "What are the capitals of Norway, Portugal and Japan?",
    "Correct the mistakes: She go to school yesterday and forget her books at home.",
    "Write the first paragraph of a story about a lighthouse keeper who finds a map.",
    "Compare cats and dogs as pets in a small table.",
    "What happens when water freezes? Be precise.",
    "Write a JSON object that describes a book with title, author and year.",
    "Give three arguments for and three against working from home.",
    "How do vaccines work?",
    "Continue the series and explain the rule: 2, 6, 12, 20, 30",
]
