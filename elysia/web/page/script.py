"""What Streamlit runs for every look at the page."""

from elysia.web.page.main import main

if __name__ == "__main__":  # as Streamlit names what it runs
    main()
