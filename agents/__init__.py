"""What an agent asks and what it makes of the answer: prompt sets, questions, conclusions, names."""
