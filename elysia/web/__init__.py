"""The pages: Streamlit and Gradio over the chat service. Nothing here decides, it shows and asks.

Knows nothing of engines, of memory or of how a prompt is made.
"""
