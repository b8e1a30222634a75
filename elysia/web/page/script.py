"""What Streamlit runs for every look at the page."""

from elysia.web.page.main import main

main()
